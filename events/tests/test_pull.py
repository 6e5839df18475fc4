import asyncio

import pytest
from asgiref.sync import sync_to_async

from audit.tests.conftest import in_thread, until
from consumers.models import Consumer
from events.letters import redrive
from events.models import DeadLetter, Subscription
from events.tests.whole import running_whole
from gateway.durable import readers
from gateway.handlers import subscription
from gateway.refusals import Refused
from keys.models import Key
from keys.services import issue_key, revoke_key, update_key

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def whole(link, nats_server, redis_url, tmp_path):
    async with running_whole(link, nats_server.url, redis_url, tmp_path) as found:
        yield found


async def test_what_is_pulled_and_acknowledged_is_given_once_in_its_order(whole):
    await whole.publish("before")
    subscription = await whole.subscribe(type="pull")
    assert {"type": "pull", "channel": "trades", "url": None, "state": "active", "max_in_flight": 100}.items() <= (
        subscription.items()
    )
    assert "secret" not in subscription
    assert await whole.pull(subscription) == []
    ids = await whole.publish({"n": 1}, {"n": 2}, {"n": 3})
    _, answer = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}")
    assert answer["lag"]["events"] == 3
    assert answer["lag"]["seconds"] >= 0
    first = await whole.pull(subscription, "limit=2")
    assert [(event["id"], event["data"]) for event in first] == [(ids[0], {"n": 1}), (ids[1], {"n": 2})]
    assert first[0]["delivery"]["attempt"] == 1
    status, answer = await whole.call(
        "POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": [ids[0], first[1]["delivery"]["id"]]}
    )
    assert (status, answer) == (200, {"ids": ids[:2], "unknown": []})
    assert [event["id"] for event in await whole.pull(subscription)] == [ids[2]]
    status, answer = await whole.call(
        "POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": [*ids, "999999999999999999"]}
    )
    assert answer == {"ids": [ids[2]], "unknown": [*ids[:2], "999999999999999999"]}
    _, answer = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}")
    assert (answer["lag"], answer["last_acked_id"]) == ({"events": 0, "seconds": 0.0}, ids[2])


async def test_what_is_not_acknowledged_is_given_again_and_what_is_extended_later(whole):
    subscription = await whole.subscribe(type="pull", ack_wait_s=1)
    path = f"/v1/subscriptions/{subscription['id']}"
    ids = await whole.publish(1, 2, 3)
    assert len(await whole.pull(subscription)) == 3
    await whole.call("POST", f"{path}/extend", {"ids": [ids[2]], "seconds": 60})
    await whole.call("POST", f"{path}/nack", {"ids": [ids[1]]})
    again = await whole.pull(subscription, "limit=1&wait_s=10")
    assert [(event["id"], event["delivery"]["attempt"]) for event in again] == [(ids[1], 2)]
    again = await whole.pull(subscription, "limit=1&wait_s=10")  # the first one's time is over
    assert [(event["id"], event["delivery"]["redelivered"]) for event in again] == [(ids[0], True)]
    await whole.call("POST", f"{path}/ack", {"ids": ids})
    await whole.call("POST", f"{path}/nack", {"ids": ids})
    assert await whole.pull(subscription, "wait_s=1.5") == []


async def test_who_waits_is_given_the_first_to_come(whole):
    subscription = await whole.subscribe(type="pull")
    waiting = asyncio.create_task(whole.pull(subscription, "wait_s=20"))
    await asyncio.sleep(0.3)
    ids = await whole.publish("late")
    assert [event["id"] for event in await waiting] == ids


async def test_who_waits_with_a_key_that_is_revoked_meanwhile_is_given_nothing(whole):
    """Even where the event comes before the waiting looks at its rights again: it is there for the next key."""
    key = await Key.objects.aget(consumer__name="acme", name="")
    _, whole.keys["second"] = await sync_to_async(issue_key)(
        consumer=await Consumer.objects.aget(name="acme"), name="second", scopes=["*"], by="test"
    )
    subscription = await whole.subscribe(type="pull")
    path = f"/v1/subscriptions/{subscription['id']}/events"
    waiting = asyncio.create_task(whole.call("GET", f"{path}?wait_s=20"))
    await asyncio.sleep(0.3)
    await sync_to_async(revoke_key)(key, reason="leaked", by="test")
    await until(lambda: answers_revoked(whole, f"/v1/subscriptions/{subscription['id']}"))
    ids = await whole.publish("late", by="second")
    status, answer = await waiting
    assert (status, answer["reason"]) == (401, "key-revoked")
    status, answer = await whole.call("GET", f"{path}?wait_s=10", by="second")
    assert [event["id"] for event in answer["results"]] == ids


async def test_who_waits_where_its_key_may_not_be_used_any_more_is_given_nothing(whole):
    key = await Key.objects.aget(consumer__name="acme", name="")
    subscription = await whole.subscribe(type="pull")
    waiting = asyncio.create_task(whole.call("GET", f"/v1/subscriptions/{subscription['id']}/events?wait_s=20"))
    await asyncio.sleep(0.3)
    await sync_to_async(update_key)(key, allowed_ips=["192.0.2.0/24"], by="test")
    status, answer = await waiting
    assert (status, answer["reason"]) == (403, "ip-not-allowed")


async def test_no_more_is_out_than_was_allowed_and_one_at_a_time_is_strictly_ordered(whole):
    subscription = await whole.subscribe(type="pull", max_in_flight=1)
    path = f"/v1/subscriptions/{subscription['id']}"
    ids = await whole.publish(*range(3))
    for id_ in ids:
        given = await whole.pull(subscription)
        assert [event["id"] for event in given] == [id_]
        assert await whole.pull(subscription) == []
        await whole.call("POST", f"{path}/nack", {"ids": [id_]})
        assert [event["id"] for event in await whole.pull(subscription, "wait_s=5")] == [id_]
        await whole.call("POST", f"{path}/ack", {"ids": [id_]})


async def test_a_poison_event_dies_and_those_behind_it_go_on(whole):
    subscription = await whole.subscribe(type="pull", max_in_flight=1, max_attempts=2)
    path = f"/v1/subscriptions/{subscription['id']}"
    poison, good = await whole.publish({"is": "poison"}, {"is": "good"}, headers=[(b"traceparent", TRACE)])
    for _ in range(2):
        assert [event["id"] for event in await whole.pull(subscription, "wait_s=5")] == [poison]
        await whole.call("POST", f"{path}/nack", {"ids": [poison]})
    assert [event["id"] for event in await whole.pull(subscription, "wait_s=5")] == [good]
    letter = await until(lambda: sync_to_async(DeadLetter.objects.first)())
    assert (letter.reason, letter.attempts, letter.subscription) == ("undelivered", 2, subscription["id"])
    assert letter.event["data"] == {"is": "poison"}
    assert letter.event["traceparent"] == TRACE.decode()


async def test_what_is_put_back_goes_to_its_subscription_alone_and_is_as_it_was(whole):
    given_up = await whole.subscribe(type="pull", max_attempts=1, channel="sensors/{id}/reading")
    other = await whole.subscribe(type="pull", channel="sensors/{id}/reading")
    headers = [(b"traceparent", TRACE), (b"ce-id", b"mine"), (b"ce-type", b"reading"), (b"ce-specversion", b"1.0"),
               (b"ce-source", b"/plant"), (b"ce-partitionkey", b"p1")]  # fmt: skip
    (id_,) = await whole.publish({"huge": 123456789012345678901234567890}, channel="sensors/a/reading", headers=headers)
    (first,) = await whole.pull(given_up)
    await whole.call("POST", f"/v1/subscriptions/{given_up['id']}/nack", {"ids": [id_]})
    assert await whole.pull(given_up, "wait_s=0.5") == []
    letter = await until(lambda: sync_to_async(DeadLetter.objects.first)())
    await in_thread(redrive, letter, by="test")
    (again,) = await whole.pull(given_up, "wait_s=5")
    assert again["delivery"]["redriven_from"] == id_
    assert {**again, "id": 0, "delivery": 0} == {**first, "id": 0, "delivery": 0}
    status, answer = await whole.call("POST", f"/v1/subscriptions/{given_up['id']}/ack", {"ids": [again["id"]]})
    assert (status, answer["ids"]) == (200, [again["id"]])
    assert [event["id"] for event in await whole.pull(other)] == [id_]
    _, history = await whole.call("GET", "/v1/channels/sensors/a/reading/events")
    assert [event["id"] for event in history["results"]] == [id_]


TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_it_begins_where_it_was_asked_to(whole):
    ids = await whole.publish(1, 2, 3)
    for begins, expected in (("earliest", ids), (ids[0], ids[1:]), ("latest", [])):
        subscription = await whole.subscribe(type="pull", **{"from": begins})
        assert [event["id"] for event in await whole.pull(subscription)] == expected


async def test_a_subscription_to_a_template_reads_every_address_of_it(whole):
    subscription = await whole.subscribe(type="pull", channel="sensors/{id}/reading")
    await whole.publish(1, channel="sensors/a/reading")
    await whole.publish(2, channel="sensors/b/reading")
    assert [event["channel"] for event in await whole.pull(subscription)] == ["sensors/a/reading", "sensors/b/reading"]


async def test_another_consumers_subscription_is_unknown(whole):
    subscription = await whole.subscribe(type="pull")
    path = f"/v1/subscriptions/{subscription['id']}"
    for method, at in (
        ("GET", path), ("PATCH", path), ("DELETE", path), ("GET", f"{path}/events"), ("POST", f"{path}/ack"),
        ("POST", f"{path}/nack"), ("POST", f"{path}/extend"), ("POST", f"{path}/rotate"),
    ):  # fmt: skip
        status, answer = await whole.call(method, at, by="bolt")
        assert (status, answer["reason"]) == (404, "not-found"), at
    assert (await whole.call("GET", "/v1/subscriptions", by="bolt"))[1]["results"] == []
    assert [one["id"] for one in (await whole.call("GET", "/v1/subscriptions"))[1]["results"]] == [subscription["id"]]


async def test_rights_are_asked_for_at_making_and_at_each_pull(whole):
    def narrow_key(scopes):
        key = Key.objects.get(consumer__name="acme", name="")
        return issue_key(consumer=key.consumer, name="narrow", scopes=scopes, by="test")

    _, whole.keys["narrow"] = await sync_to_async(narrow_key)(["subscribe:other"])
    await until(lambda: answers_forbidden(whole))
    subscription = await whole.subscribe(type="pull")
    path = f"/v1/subscriptions/{subscription['id']}"
    for method, at in (("GET", f"{path}/events"), ("PATCH", path), ("POST", f"{path}/rotate")):
        assert (await whole.call(method, at, by="narrow"))[0] == 404
    key = await Key.objects.aget(consumer__name="acme", name="")
    await sync_to_async(revoke_key)(key, reason="leaked", by="test")
    await until(lambda: answers_revoked(whole, path))


async def answers_forbidden(whole):
    status, _ = await whole.call("POST", "/v1/subscriptions", {"type": "pull", "channel": "trades"}, by="narrow")
    return status == 403


async def answers_revoked(whole, path):
    return (await whole.call("GET", f"{path}/events"))[0] == 401


PULL = {"type": "pull", "channel": "trades"}
BAD_BODIES = [
    *({**PULL, **fields} for fields in (
        {"type": "push"}, {"channel": 5}, {"colour": "red"}, {"from": "yesterday"}, {"from": 5}, {"max_in_flight": 0},
        {"max_in_flight": True}, {"max_in_flight": 10**9}, {"ack_wait_s": "long"}, {"retry_schedule_s": []},
        {"retry_schedule_s": [1, "x"]}, {"url": "https://hooks.example/"}, {"order": "key"}, {"order": "none"},
        {"type": "webhook"}, {"type": "webhook", "url": "ftp://a.example"}, {"channel": "a\x00"}, {"id": "sub_x"},
        {"type": "webhook", "url": "http://127.0.0.1/"}, {"by": "root"}, {"state": "ended"},
        {"alert_url": "https://hooks.example/"}, {"channel": "a/#/b"},
    )), {}, [], "x", {"channel": "trades"}, {"type": "pull"},
]  # fmt: skip
BAD_WORDS = [
    ("ack", {}), ("ack", {"ids": []}), ("ack", {"ids": "1"}), ("ack", {"ids": [1]}), ("ack", {"ids": ["-1"]}),
    ("ack", {"ids": ["1" * 30]}), ("ack", {"ids": ["1"], "seconds": -1}), ("nack", {"ids": ["1"], "seconds": -1}),
    ("nack", {"ids": ["1"], "seconds": "soon"}), ("extend", {"ids": ["1"], "seconds": 10**9}), ("extend", []),
    ("ack", {"ids": ["1"] * 1001}),
]  # fmt: skip
BAD_QUERIES = [
    "limit=0",
    "limit=x",
    "wait_s=-1",
    "wait_s=nan",
    "wait_s=1_0",
    "wait_s=%201",
    "colour=red",
    "limit=1&limit=2",
]


async def test_bad_input_is_refused_and_makes_nothing(whole):
    for body in BAD_BODIES:
        status, answer = await whole.call("POST", "/v1/subscriptions", body)
        assert (status, "reason" in answer) == (400, True), (body, answer)
    assert (await whole.call("POST", "/v1/subscriptions", {**PULL, "channel": "none"}))[0] == 404
    assert not await Subscription.objects.aexists()
    subscription = await whole.subscribe(type="pull")
    for verb, body in BAD_WORDS:
        status, answer = await whole.call("POST", f"/v1/subscriptions/{subscription['id']}/{verb}", body)
        assert status == 400, (verb, body, answer)
    for query in BAD_QUERIES:
        status, answer = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}/events?{query}")
        assert status == 400, (query, answer)


async def test_a_repeat_with_its_idempotency_key_makes_one(whole):
    headers = [(b"idempotency-key", b"once")]
    body = {"type": "pull", "channel": "trades"}
    made = [(await whole.call("POST", "/v1/subscriptions", body, headers=headers))[1]["id"] for _ in range(2)]
    other = (await whole.call("POST", "/v1/subscriptions", body, headers=headers, by="bolt"))[1]["id"]
    assert made[0] == made[1] != other


async def test_paused_resumed_and_deleted(whole):
    subscription = await whole.subscribe(type="pull")
    path = f"/v1/subscriptions/{subscription['id']}"
    status, answer = await whole.call("PATCH", path, {"state": "paused", "max_in_flight": 7})
    assert (status, answer["state"], answer["state_reason"], answer["max_in_flight"]) == (200, "paused", "requested", 7)
    status, answer = await whole.call("GET", f"{path}/events")
    assert (status, answer["detail"]) == (403, "The subscription is paused: requested.")
    assert (await whole.call("PATCH", path, {"state": "active"}))[1]["state"] == "active"
    assert await whole.pull(subscription) == []
    assert (await whole.call("PATCH", path, {"channel": "other"}))[0] == 400
    assert (await whole.call("DELETE", path))[0] == 204
    assert (await whole.call("GET", path))[0] == 404


async def test_limits_hold_back_what_is_pulled_and_count_it(whole):
    from consumers.models import Tier
    from consumers.services import update_tier

    subscription = await whole.subscribe(type="pull")
    ids = await whole.publish(*range(5))
    tier = await Tier.objects.aget(name="free")
    limits = [{"metric": "messages_out", "amount": 3, "per": 3600}]
    await sync_to_async(update_tier)(tier, limits=limits, by="test")
    await until(lambda: asyncio.sleep(0, len(whole.plane.snapshot._documents["tier"]["free"].limits) > 1))
    assert [event["id"] for event in await whole.pull(subscription)] == ids[:3]
    status, answer = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}/events")
    assert (status, answer["reason"]) == (429, "rate-limited")


@pytest.mark.parametrize("limit", [{"metric": "messages_out", "amount": 1}, {"metric": "bytes_out", "amount": 10}])
async def test_what_limits_hold_back_uses_up_no_try(whole, limit):
    from consumers.models import Tier
    from consumers.services import update_tier

    subscription = await whole.subscribe(type="pull", max_attempts=2)
    path = f"/v1/subscriptions/{subscription['id']}"
    ids = await whole.publish("a" * 6, "b" * 6, "c" * 6)
    tier = await Tier.objects.aget(name="free")
    await sync_to_async(update_tier)(tier, limits=[{**limit, "per": 3600}], by="test")
    await until(lambda: asyncio.sleep(0, len(whole.plane.snapshot._documents["tier"]["free"].limits) > 1))
    assert [event["id"] for event in await whole.pull(subscription)] == ids[:1]
    for _ in range(4):
        status, answer = await whole.call("GET", f"{path}/events")
        assert (status, answer["reason"]) == (429, "rate-limited")
    await sync_to_async(update_tier)(tier, limits=[], by="test")
    await until(lambda: asyncio.sleep(0, len(whole.plane.snapshot._documents["tier"]["free"].limits) == 1))
    given = await whole.pull(subscription)
    assert [(event["id"], event["delivery"]["attempt"]) for event in given] == [(ids[1], 1), (ids[2], 1)]
    assert not await DeadLetter.objects.acount()
    # Those that the caller had are tries: the second is the last.
    for _ in range(2):
        await whole.call("POST", f"{path}/nack", {"ids": ids[1:]})
        again = await whole.pull(subscription)
    assert again == []
    letters = await until(lambda: sync_to_async(lambda: list(DeadLetter.objects.all()))())
    assert {letter.attempts for letter in letters} == {2}


async def test_a_list_does_not_wait_for_a_log_that_hangs(whole, nats_server, monkeypatch):
    for _ in range(3):
        await whole.subscribe(type="pull")
    # However long one question may take: the list has an end of its own.
    monkeypatch.setattr(readers, "DEADLINE_S", 3600)
    monkeypatch.setattr(subscription, "LIST_TIMEOUT_S", 0.2)
    nats_server.freeze()
    try:
        async with asyncio.timeout(60):
            status, answer = await whole.call("GET", "/v1/subscriptions?state=active")
    finally:
        nats_server.thaw()
    assert status == 200
    assert [one["lag"] for one in answer["results"]] == [{"events": None, "seconds": None}] * 3


STEPS = ("events", "ack", "nack", "extend")


@pytest.mark.parametrize("first", STEPS)
async def test_a_log_that_hangs_is_waited_for_once_though_nobody_else_reads(whole, nats_server, monkeypatch, first):
    subscription = await whole.subscribe(type="pull")
    path = f"/v1/subscriptions/{subscription['id']}"
    assert await whole.pull(subscription) == []
    monkeypatch.setattr(readers, "DEADLINE_S", 3600)  # the log is asked for a reply long before

    async def call(step):
        return await (
            whole.call("GET", f"{path}/events")
            if step == "events"
            else whole.call("POST", f"{path}/{step}", {"ids": ["1"]})
        )

    nats_server.freeze()
    try:
        async with asyncio.timeout(60):
            status, answer = await call(first)
            assert (status, answer["reason"]) == (503, "overloaded")
            with pytest.raises(Refused):
                whole.plane.log.require_available()
            for step in STEPS:
                assert (await call(step))[0] == 503
    finally:
        nats_server.thaw()
    await until(lambda: _is_pulled(whole, path))


async def _is_pulled(whole, path):
    return (await whole.call("GET", f"{path}/events"))[0] == 200


JUNK = [None, True, -1, 0, 1.5, 10**30, "", "x" * 5000, "\x00", "\ud83d", [], [[]], {}, {"a": {}}, ["a"], "NaN", "-"]


async def test_no_value_of_any_field_makes_a_fault(whole):
    names = ("type", "channel", "url", "order", "max_in_flight", "max_attempts", "retry_schedule_s", "ack_wait_s",
             "alert_url", "alert_lag_events", "alert_lag_s", "from", "state")  # fmt: skip
    subscription = await whole.subscribe(type="pull")
    path = f"/v1/subscriptions/{subscription['id']}"
    for name in names:
        for value in JUNK:
            for method, at, body in (
                ("POST", "/v1/subscriptions", {**PULL, name: value}),
                ("PATCH", path, {name: value}),
            ):
                status, answer = await whole.call(method, at, body)
                assert status < 500, (method, name, value, answer)
    for name, value in (("overlap_s", JUNK), ("ids", JUNK), ("seconds", JUNK)):
        for one in value:
            for verb in ("rotate", "ack", "nack", "extend"):
                status, answer = await whole.call("POST", f"{path}/{verb}", {"ids": ["1"], name: one})
                assert status < 500, (verb, name, one, answer)
