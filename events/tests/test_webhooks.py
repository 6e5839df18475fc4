import asyncio
import contextlib
import dataclasses
from ipaddress import ip_network
from unittest.mock import ANY

import pytest
from asgiref.sync import sync_to_async
from nats.js.api import ConsumerConfig
from standardwebhooks import Webhook, WebhookVerificationError

from audit.tests.conftest import in_thread, until
from events.models import DeadLetter, Subscription
from events.tests.receiver import plain, receiving
from events.tests.whole import running_whole
from gateway.concurrency.stopping import stop_tasks
from gateway.delivery.process import DeliveryProcess
from gateway.durable.health import read_healths
from gateway.refusals import Reason, Refused
from gateway.tests.clock import EACH_WAY, Clock
from keys.models import Key
from keys.services import revoke_key

pytestmark = pytest.mark.django_db(transaction=True)

LOOPBACK = (ip_network("127.0.0.0/8"),)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FAST = {"retry_schedule_s": [0, 0.05, 0.05], "max_attempts": 3}


@pytest.fixture
async def whole(link, nats_server, redis_url, tmp_path, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = LOOPBACK
    options = {"outbound_allowed_networks": LOOPBACK, "webhook_timeout_s": 1.5}
    async with running_whole(link, nats_server.url, redis_url, tmp_path, **options) as found:
        yield found


@contextlib.asynccontextmanager
async def delivering(whole, *, name="delivery", **options):
    config = dataclasses.replace(whole.plane.config, process=name, kind="delivery")
    delivery = await DeliveryProcess.start(config, **options)
    try:
        yield delivery
    finally:
        await delivery.stop()


@pytest.fixture
async def delivery(whole):
    async with delivering(whole) as found:
        yield found


async def shown(whole, subscription):
    _, said = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}")
    return said


async def stands(whole, subscription, state, reason=None):
    said = await shown(whole, subscription)
    return (said["state"], said["state_reason"]) == (state, reason) and said


async def is_behind(whole, subscription):
    return (await shown(whole, subscription))["lag"]["events"] >= 1


async def test_an_event_is_sent_once_signed_with_its_trace(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url + "?tenant=7")
        assert subscription["secret"].startswith("whsec_")
        assert "secret" not in await shown(whole, subscription)
        (id_,) = await whole.publish({"n": 1}, headers=[(b"traceparent", TRACE.encode())])
        (message,) = await receiver.has(1)
        assert message.target == "/hook?tenant=7"
        said = Webhook(subscription["secret"]).verify(message.body, message.headers)
        assert {"type": "event", "channel": "trades", "id": id_, "data": {"n": 1}}.items() <= said.items()
        assert message.headers["traceparent"] == said["traceparent"] == TRACE
        assert message.headers["webhook-id"] == f"{subscription['id']}_{id_}"
        said = await until(lambda: caught_up(whole, subscription))
        assert (said["last_acked_id"], said["state"]) == (id_, "active")
        assert len(receiver.messages) == 1


async def caught_up(whole, subscription):
    said = await shown(whole, subscription)
    return said["lag"]["events"] == 0 and said


async def test_in_the_order_of_the_channel_the_next_waits_for_the_one_before(whole, delivery):
    left = {2: 2, 4: 1}

    def answer(message):
        left[message.data] = left.get(message.data, 0) - 1
        return 500 if left[message.data] >= 0 else 200

    async with receiving(answer) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        await whole.publish(*range(1, 6))
        await receiver.has(8)
        assert receiver.values == [1, 2, 2, 2, 3, 4, 4, 5]
        assert receiver.most_under_way == 1
        assert len({message.headers["webhook-id"] for message in receiver.messages}) == 5


@EACH_WAY
async def test_a_clock_that_is_set_makes_nobody_wait_longer_for_the_next_try(whole, delivery, monkeypatch, jump_s):
    clock = Clock(monkeypatch)

    def answer(message):
        if len(receiver.messages) > 1:
            return 204
        asyncio.get_running_loop().call_later(0.2, clock.jump, jump_s)  # once the next try is put off
        return 500

    async with receiving(answer) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, retry_schedule_s=[0, 0.5], max_attempts=3)
        await whole.publish("late")
        await receiver.has(2)
        assert receiver.values == ["late"] * 2


async def test_a_poison_event_becomes_a_dead_letter_and_the_channel_goes_on(whole, delivery):
    async with receiving(
        lambda message: plain(400, b"cannot read this") if message.data == "poison" else 200
    ) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        poison, _ = await whole.publish("poison", "good")
        await until(lambda: asyncio.sleep(0, "good" in receiver.values))
        assert receiver.values == ["poison"] * 3 + ["good"]
        letter = await until(lambda: sync_to_async(DeadLetter.objects.first)())
        assert (letter.reason, letter.detail, letter.attempts) == ("undelivered", "It answered 400.", 3)
        assert (letter.subscription, letter.consumer, letter.protocol) == (subscription["id"], "acme", "webhook")
        assert (letter.event["data"], letter.event["id"]) == ("poison", poison)
        await until(lambda: stands(whole, subscription, "active"))
        await until(lambda: caught_up(whole, subscription))


async def test_by_key_a_failing_event_holds_up_its_key_alone(whole, delivery):
    release = asyncio.Event()
    async with receiving(lambda message: 500 if message.data == "a1" and not release.is_set() else 200) as receiver:
        await whole.subscribe(
            type="webhook", url=receiver.url, channel="sensors/{id}/reading", order="key", max_in_flight=4,
            retry_schedule_s=[0, 0.3], max_attempts=100,
        )  # fmt: skip
        for value in ("a1", "b1", "a2", "b2", "a3", "b3"):
            await whole.publish(value, channel=f"sensors/{value[0]}/reading")
        await until(lambda: asyncio.sleep(0, {"b1", "b2", "b3"} <= {*receiver.values}))
        assert {*receiver.values} == {"a1", "b1", "b2", "b3"}
        release.set()
        await until(lambda: asyncio.sleep(0, "a3" in receiver.values))
        assert [value for value in receiver.values if value != "a1" and value[0] == "a"] == ["a2", "a3"]
        assert [value for value in receiver.values if value[0] == "b"] == ["b1", "b2", "b3"]


async def test_by_key_what_is_sent_while_the_log_is_away_is_not_sent_beside_itself(whole, delivery, monkeypatch):
    held = {"a1": asyncio.Event(), "a2": asyncio.Event()}

    async def hold(message):
        await held[message.data].wait()
        return 200

    async with receiving(hold) as receiver:
        subscription = await whole.subscribe(
            type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=4
        )
        for value in held:
            await whole.publish(value, channel="sensors/a/reading")
        worker = await until(lambda: asyncio.sleep(0, delivery.workers.get(subscription["id"])))
        await until(lambda: asyncio.sleep(0, worker._order.in_hand == 2))
        fetch, failed, under_way = delivery.desk.readers.fetch, asyncio.Event(), []

        async def away_once(*arguments):
            if not failed.is_set():
                failed.set()
                raise Refused(Reason.OVERLOADED)
            under_way.append(len(worker._tasks))
            return await fetch(*arguments)

        monkeypatch.setattr("gateway.delivery.worker.RESTART_MAX_S", 0.01)
        monkeypatch.setattr(delivery.desk.readers, "fetch", away_once)
        await failed.wait()
        held["a1"].set()
        await receiver.has(2)
        with contextlib.suppress(TimeoutError):
            await until(lambda: asyncio.sleep(0, under_way), 0.3)  # long enough to begin anew too early
        held["a2"].set()
        await until(lambda: caught_up(whole, subscription))
        await until(lambda: asyncio.sleep(0, under_way))
        assert under_way[0] == 0
        assert list(dict.fromkeys(receiver.values)) == ["a1", "a2"]


async def test_no_more_are_under_way_than_was_allowed(whole, delivery):
    async def slowly(message):
        await asyncio.sleep(0.05)
        return 200

    async with receiving(slowly) as receiver:
        subscription = await whole.subscribe(
            type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=3
        )
        assert subscription["order"] == "key"
        for number in range(12):
            await whole.publish(number, channel=f"sensors/{number}/reading")
        await receiver.has(12)
        assert receiver.most_under_way == 3


async def test_410_ends_it_and_it_can_begin_again(whole, delivery):
    answers = [410, 200]
    async with receiving(lambda message: answers.pop(0)) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        await whole.publish("wanted later")
        await until(lambda: stands(whole, subscription, "ended", "endpoint-gone"))
        assert len(receiver.messages) == 1
        path = f"/v1/subscriptions/{subscription['id']}"
        assert (await whole.call("PATCH", path, {"max_attempts": 3}))[0] == 400
        assert (await whole.call("PATCH", path, {"state": "active"}))[0] == 200
        await receiver.has(2)
        assert receiver.values == ["wanted later"] * 2


async def test_redirects_are_not_followed(whole, delivery):
    async with receiving() as inner, receiving(lambda message: plain(302, location=inner.url)) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        await whole.publish(1)
        await receiver.has(3)
        assert not inner.messages
        letter = await until(lambda: sync_to_async(DeadLetter.objects.first)())
        assert letter.detail == "It answered 302."


async def a_byte_a_minute(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.2)


async def a_gigabyte(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
    with contextlib.suppress(OSError):
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()


async def nothing(writer):
    await asyncio.sleep(30)


async def garbage(writer):
    writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")


BAD_ENDPOINTS = {
    a_byte_a_minute: "No complete response within 1.5 s.",
    a_gigabyte: "The response is longer than 65536 bytes.",
    nothing: "No complete response within 1.5 s.",
    garbage: "The connection failed",
}


async def test_bad_endpoints_are_bounded_and_hold_up_nobody(whole, delivery):
    async with contextlib.AsyncExitStack() as stack:
        bad = {}
        for behaviour, said in BAD_ENDPOINTS.items():
            receiver = await stack.enter_async_context(receiving(lambda message, how=behaviour: how))
            made = await whole.subscribe(type="webhook", url=receiver.url, retry_schedule_s=[0, 600])
            bad[made["id"]] = said
        good = await stack.enter_async_context(receiving())
        await whole.subscribe(type="webhook", url=good.url)
        await whole.publish(*range(20))
        await good.has(20)
        assert good.values == [*range(20)]
        for id_, detail in bad.items():
            attempts = await until(lambda id_=id_: attempts_of(whole, id_))
            assert (attempts[0]["outcome"], attempts[0]["error"][: len(detail)]) == ("failed", detail)
            assert attempts[0]["duration_s"] < 10


async def attempts_of(whole, id_, query=""):
    return (await whole.call("GET", f"/v1/subscriptions/{id_}/attempts{query}"))[1]["results"]


async def test_attempts_can_be_inspected_and_hold_no_signature(whole, delivery):
    answers = [plain(503, b"x" * 5000, retry_after="0", x_reason="busy"), plain(200, b"ok")]
    async with receiving(lambda message: answers.pop(0)) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        (id_,) = await whole.publish({"n": 1})
        await receiver.has(2)
        last, first = await until(lambda: two_attempts(whole, subscription["id"]))
        assert (first["attempt"], first["outcome"], first["error"]) == (1, "failed", "It answered 503.")
        assert (first["answer"]["status"], len(first["answer"]["body"])) == (503, 1024)
        assert first["answer"]["headers"]["x-reason"] == "busy"
        assert (last["attempt"], last["outcome"], last["error"], last["event"]) == (2, "delivered", None, id_)
        assert (last["request"]["method"], last["request"]["url"]) == ("POST", receiver.url)
        signature = receiver.messages[0].headers["webhook-signature"]
        assert signature not in str([first, last])
        assert await attempts_of(whole, subscription["id"], f"?event={id_}&limit=1") == [last]
        assert await attempts_of(whole, subscription["id"], "?event=1") == []
        status, _ = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}/attempts", by="bolt")
        assert status == 404


async def two_attempts(whole, id_):
    found = await attempts_of(whole, id_)
    return len(found) == 2 and found


async def test_what_the_receiver_asks_to_wait_is_respected(whole, delivery):
    answers = [plain(429, retry_after="2"), plain(200)]
    came = []

    def answer(message):
        came.append(asyncio.get_running_loop().time())
        return answers.pop(0)

    async with receiving(answer) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        await whole.publish(1)
        await receiver.has(2)
        assert came[1] - came[0] >= 1.9


async def test_both_secrets_are_good_during_rotation_and_the_old_one_no_longer_after(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        path = f"/v1/subscriptions/{subscription['id']}/rotate"
        status, rotated = await whole.call("POST", path, {"overlap_s": 3600})
        assert status == 201
        assert rotated["secret"] != subscription["secret"]
        await until(lambda: knows_generation(delivery, subscription, 2))
        await whole.publish(1)
        (message,) = await receiver.has(1)
        for secret in (subscription["secret"], rotated["secret"]):
            Webhook(secret).verify(message.body, message.headers)
        _, last = await whole.call("POST", path, {"overlap_s": 0})
        await until(lambda: knows_generation(delivery, subscription, 3))
        await whole.publish(2)
        message = (await receiver.has(2))[1]
        Webhook(last["secret"]).verify(message.body, message.headers)
        for secret in (subscription["secret"], rotated["secret"]):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(message.body, message.headers)
        row = await Subscription.objects.aget()
        assert "whsec_" not in str(row.__dict__) + str(delivery.snapshot.subscription(row.id))


async def knows_generation(delivery, subscription, generation):
    known = delivery.snapshot.subscription(subscription["id"])
    return known is not None and known.secret_generation == generation


async def test_a_dead_endpoint_is_paused_probed_and_resumed(whole, delivery):
    is_up = False
    async with receiving(lambda message: 200 if is_up else 503) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        ids = await whole.publish("dies", "waits", "too")
        await until(lambda: stands(whole, subscription, "paused", "endpoint-failing"))
        assert await until(lambda: is_behind(whole, subscription))
        is_up = True
        await until(lambda: stands(whole, subscription, "active"))
        assert await until(lambda: caught_up(whole, subscription))
        assert receiver.values[-1] == "too"
        assert ids


async def test_what_its_owner_paused_is_not_sent_until_it_is_resumed(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        path = f"/v1/subscriptions/{subscription['id']}"
        await whole.call("PATCH", path, {"state": "paused"})
        await until(lambda: asyncio.sleep(0, delivery.snapshot.subscription(subscription["id"]).state == "paused"))
        await whole.publish(1)
        await asyncio.sleep(0.5)
        assert not receiver.messages
        await whole.call("PATCH", path, {"state": "active"})
        await receiver.has(1)


async def test_a_revoked_key_stops_delivery_until_another_key_takes_over(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        await whole.publish(1)
        await receiver.has(1)
        key = await Key.objects.aget(consumer__name="acme")
        _, whole.keys["again"] = await sync_to_async(_issue_like)(key)
        await sync_to_async(revoke_key)(key, reason="leaked", by="test")
        await until(lambda: is_revoked(whole, delivery, key.id))
        await whole.publish(2, by="bolt")
        await until(lambda: paused_for(whole, subscription, "key-revoked"))
        await asyncio.sleep(0.5)
        assert receiver.values == [1]
        status, said = await whole.call("PATCH", f"/v1/subscriptions/{subscription['id']}", {}, by="again")
        assert (status, said["state"]) == (200, "active")
        await receiver.has(2)
        assert receiver.values == [1, 2]


def _issue_like(key):
    from keys.services import issue_key

    return issue_key(consumer=Key.objects.with_consumer().get(id=key.id).consumer, scopes=key.scopes, by="test")


async def is_revoked(whole, delivery, key_id):
    known = delivery.snapshot.key(key_id)
    other = whole.plane.snapshot.key(key_id)
    return known.revoked_at is not None and other.revoked_at is not None


async def paused_for(whole, subscription, reason):
    _, said = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}", by="again")
    return (said["state"], said["state_reason"]) == ("paused", reason)


async def test_a_name_that_means_an_inner_address_when_connecting_is_not_called(whole):
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return [(2, ("10.0.0.1", port))]

    async with receiving() as receiver, delivering(whole, resolve=resolve):
        # At registration the name does not resolve here, so it is taken; now it means an inner network.
        subscription = await whole.subscribe(type="webhook", url=f"http://rebound.invalid:{receiver.port}/", **FAST)
        await whole.publish(1)
        attempts = await until(lambda: attempts_of(whole, subscription["id"]))
        assert attempts[-1]["error"] == "The URL's host is in an internal network, which is not called."
        assert "rebound.invalid" in asked
        assert not receiver.messages


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(whole):
    answers = [[(2, ("127.0.0.1", 0))], [(2, ("10.0.0.1", 0))]]

    async def resolve(host, port):
        family, (address, _) = (answers.pop(0) if len(answers) > 1 else answers[0])[0]
        return [(family, (address, port))]

    async with receiving() as receiver, delivering(whole, resolve=resolve):
        await whole.subscribe(type="webhook", url=f"http://named.invalid:{receiver.port}/x", **FAST)
        await whole.publish(1)
        (message,) = await receiver.has(1)
        assert message.headers["host"] == f"named.invalid:{receiver.port}"


async def test_of_two_deliverers_one_is_at_work_and_the_other_takes_over(whole):
    async with receiving() as receiver:
        await whole.subscribe(type="webhook", url=receiver.url)
        async with contextlib.AsyncExitStack() as stack:
            other_place = dataclasses.replace(whole.plane.config, data_dir=whole.plane.config.data_dir / "other")
            first = await stack.enter_async_context(delivering(whole))
            await until(lambda: asyncio.sleep(0, first.is_leading))
            second = await DeliveryProcess.start(dataclasses.replace(other_place, process="second", kind="delivery"))
            stack.push_async_callback(second.stop)
            await whole.publish(*range(30))
            await receiver.has(30)
            assert not second.is_leading
            await first.stop()
            await until(lambda: asyncio.sleep(0, second.is_leading))
            await whole.publish(*range(30, 40))
            await receiver.has(40)
            stack.pop_all().push_async_callback(second.stop)
            await second.stop()
        assert receiver.values == [*range(40)]


async def test_a_deliverer_that_was_killed_loses_nothing(whole):
    held = asyncio.Event()

    async def hold(message):
        await held.wait()
        return 200

    async with receiving(hold) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url)
        first = await DeliveryProcess.start(dataclasses.replace(whole.plane.config, process="first", kind="delivery"))
        await whole.publish(1, 2, 3)
        await receiver.has(1)
        # As SIGKILL leaves it: the effect is there, the acknowledgement is not.
        sends = [task for worker in first.workers.values() for task in worker._tasks]
        await stop_tasks(*first._background, *sends)
        await first.nats.close()
        held.set()
        async with delivering(whole, name="second"):
            await receiver.has(4)
        assert receiver.values == [1, 1, 2, 3]
        await first.stop()


async def test_by_key_what_was_under_way_when_the_deliverer_was_killed_comes_first_again(whole):
    held = asyncio.Event()

    async def hold(message):
        await held.wait()
        return 200

    async with receiving(hold) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=4)
        first = await DeliveryProcess.start(dataclasses.replace(whole.plane.config, process="first", kind="delivery"))
        for number in range(6):
            for key in "ab":
                await whole.publish(f"{key}{number}", channel=f"sensors/{key}/reading")
        await receiver.has(2)
        # As SIGKILL leaves it: some were under way or in hand, and some were never fetched.
        sends = [task for worker in first.workers.values() for task in worker._tasks]
        await stop_tasks(*first._background, *sends)
        await first.nats.close()
        held.set()
        async with delivering(whole, name="second"):
            await receiver.has(14)
        for key in "ab":
            firsts = dict.fromkeys(value for value in receiver.values if value[0] == key)
            assert list(firsts) == [f"{key}{number}" for number in range(6)]
        await first.stop()


async def test_limits_of_the_consumer_hold_messages_back(whole, delivery):
    from consumers.models import Tier
    from consumers.services import update_tier

    tier = await Tier.objects.aget(name="free")
    limits = [{"metric": "messages_out", "amount": 2, "per": 3600}]
    await sync_to_async(update_tier)(tier, limits=limits, by="test")
    await until(lambda: asyncio.sleep(0, delivery.snapshot._documents["tier"]["free"].limits))
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        await whole.publish(1, 2, 3)
        await receiver.has(2)
        await asyncio.sleep(1.5)
        assert receiver.values == [1, 2]
        assert (await shown(whole, subscription))["lag"]["events"] == 1
        assert not await DeadLetter.objects.aexists()


async def test_who_wants_to_know_is_told_once_that_it_lags_and_once_that_it_has_caught_up(whole, delivery):
    async with receiving() as alerts:
        subscription = await whole.subscribe(type="pull", alert_url=alerts.url, alert_lag_events=3)
        ids = await whole.publish(*range(4))
        (message,) = await alerts.has(1)
        said = Webhook(subscription["secret"]).verify(message.body, message.headers)
        assert (said["type"], said["data"]["lag"]["events"]) == ("subscription.lagging", 4)
        await asyncio.sleep(2.5)
        assert len(alerts.messages) == 1
        await whole.pull(subscription)
        await whole.call("POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": ids})
        message = (await alerts.has(2))[1]
        assert message.said["type"] == "subscription.caught-up"


async def test_operators_are_told_how_it_stands_and_what_became_of_its_tries(whole, delivery, api):
    async with receiving(lambda message: 500) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, retry_schedule_s=[0, 600])
        await whole.publish(1, 2)
        await receiver.has(1)
        path = f"/api/v1/subscriptions/{subscription['id']}"
        said = await until(lambda: in_thread(lambda: lags(api.get(path).json())))
        assert (said["lag"]["events"], said["last_error"]["detail"]) == (2, "It answered 500.")
        assert (await in_thread(lambda: api.get("/api/v1/subscriptions/").json()))["results"] == [
            {**said, "lag": ANY, "last_error": ANY}
        ]
        (attempt,) = (await in_thread(lambda: api.get(f"{path}/attempts").json()))["results"]
        assert (attempt["outcome"], attempt["answer"]["status"]) == ("failed", 500)


def lags(said):
    return said["lag"]["events"] == 2 and said["last_error"] and said


async def test_what_was_deleted_leaves_nothing_in_the_log(whole, delivery):
    async with receiving() as receiver:
        made = [await whole.subscribe(type="webhook", url=receiver.url), await whole.subscribe(type="pull")]
        await whole.publish(1)
        await receiver.has(1)
        _, js = whole.link
        stream = whole.plane.snapshot.channel("trades")[0].stream
        await until(lambda: watched(whole, made))
        for subscription in made:
            await whole.call("DELETE", f"/v1/subscriptions/{subscription['id']}")
        await until(lambda: nothing_left(js, stream))
        await until(lambda: nothing_said(whole))


async def watched(whole, made):
    return {one["id"] for one in made} == set(await read_healths(whole.link[0]))


async def nothing_said(whole):
    return not await read_healths(whole.link[0])


async def nothing_left(js, stream):
    return not await js.consumers_info(stream)


async def test_readers_of_no_subscription_are_swept(whole, delivery):
    _, js = whole.link
    stream = whole.plane.snapshot.channel("trades")[0].stream
    for name in ("sub_orphan", "foreign"):
        await js.add_consumer(stream, ConsumerConfig(durable_name=name))
    await delivery._watch._sweep()
    assert [info.name for info in await js.consumers_info(stream)] == ["foreign"]


async def test_a_log_that_is_killed_and_comes_back_loses_nothing(whole, delivery, nats_server):
    left = {5: 1, 12: 2}

    def answer(message):
        left[message.data] = left.get(message.data, 0) - 1
        return 500 if left[message.data] >= 0 else 200

    async with receiving(answer) as receiver:
        subscription = await whole.subscribe(
            type="webhook", url=receiver.url, retry_schedule_s=[0, 0.2], max_attempts=9
        )
        await whole.publish(*range(20))
        await receiver.has(4)
        nats_server.kill()
        await asyncio.sleep(0.5)
        nats_server.start()
        await until(lambda: asyncio.sleep(0, {*range(20)} <= {*receiver.values}), 40)
        firsts = list(dict.fromkeys(receiver.values))
        assert firsts == [*range(20)]
        assert await until(lambda: caught_up(whole, subscription))
        assert not await DeadLetter.objects.aexists()


async def test_a_log_that_hangs_for_a_while_loses_nothing(whole, delivery, nats_server):
    async with receiving() as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=4)
        for number in range(12):
            await whole.publish(number, channel=f"sensors/{number % 3}/reading")
        await receiver.has(3)
        nats_server.freeze()
        await asyncio.sleep(2.5)
        nats_server.thaw()
        await until(lambda: asyncio.sleep(0, {*range(12)} <= {*receiver.values}), 40)
        for key in range(3):
            firsts = list(dict.fromkeys(value for value in receiver.values if value % 3 == key))
            assert firsts == sorted(firsts)


async def test_an_emptied_log_is_subscribed_to_anew(whole, delivery, nats_server):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        await whole.publish("before")
        await receiver.has(1)
        await asyncio.to_thread(nats_server.empty)
        await until(lambda: takes(whole, "after"), 40)
        await until(lambda: asyncio.sleep(0, "after" in receiver.values), 40)
        assert (await until(lambda: stands(whole, subscription, "active")))["type"] == "webhook"


async def takes(whole, value):
    status, _ = await whole.call("POST", "/v1/channels/trades/events", value)
    return status == 201


async def test_what_came_into_the_log_by_no_door_of_ours_holds_up_nobody(whole, delivery):
    _, js = whole.link
    async with receiving() as receiver:
        await whole.subscribe(type="webhook", url=receiver.url)
        pulled = await whole.subscribe(type="pull")
        await js.publish("trades", b"\xff\xfe not text")
        await whole.publish("good")
        await receiver.has(1)
        assert receiver.values == ["good"]
        assert [event["data"] for event in await whole.pull(pulled)] == ["good"]
        letters = await until(lambda: two_letters())
        assert {letter.detail for letter in letters} == {"It cannot be written as JSON."}
        assert {letter.event["data_base64"] for letter in letters} == {"//4gbm90IHRleHQ="}


async def two_letters():
    found = [letter async for letter in DeadLetter.objects.all()]
    return len(found) == 2 and found
