"""Webhooks are sent in order, retried and given up; bad endpoints hold up nobody."""

import asyncio
import contextlib

import pytest
from asgiref.sync import sync_to_async
from standardwebhooks import Webhook

from audit.tests.conftest import until
from events.models import DeadLetter
from events.tests.delivering import FAST, TRACE, attempts_of, caught_up, delivering, shown, stands, two_attempts
from events.tests.receiver import plain, receiving
from gateway.tests.clock import EACH_WAY, Clock

pytestmark = pytest.mark.django_db(transaction=True)


async def test_an_event_is_sent_once_signed_with_its_trace(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url + "?tenant=7")
        assert subscription["secret"].startswith("whsec_")
        assert "secret" not in await shown(whole, subscription)
        (id_,) = await whole.publish({"n": 1}, headers=[(b"traceparent", TRACE.encode())])
        (message,) = await receiver.has(1)
        assert message.target == "/hook?tenant=7"
        reply = Webhook(subscription["secret"]).verify(message.body, message.headers)
        assert {"type": "event", "channel": "trades", "id": id_, "data": {"n": 1}}.items() <= reply.items()
        assert message.headers["traceparent"] == reply["traceparent"] == TRACE
        assert message.headers["webhook-id"] == f"{subscription['id']}_{id_}"
        reply = await until(lambda: caught_up(whole, subscription))
        assert (reply["last_acked_id"], reply["state"]) == (id_, "active")
        assert len(receiver.messages) == 1


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
        for behaviour, reply in BAD_ENDPOINTS.items():
            receiver = await stack.enter_async_context(receiving(lambda message, how=behaviour: how))
            made = await whole.subscribe(type="webhook", url=receiver.url, retry_schedule_s=[0, 600])
            bad[made["id"]] = reply
        good = await stack.enter_async_context(receiving())
        await whole.subscribe(type="webhook", url=good.url)
        await whole.publish(*range(20))
        await good.has(20)
        assert good.values == [*range(20)]
        for id_, detail in bad.items():
            attempts = await until(lambda id_=id_: attempts_of(whole, id_))
            assert (attempts[0]["outcome"], attempts[0]["error"][: len(detail)]) == ("failed", detail)
            assert attempts[0]["duration_s"] < 10


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


async def test_a_name_that_means_an_inner_address_when_connecting_is_not_called(whole):
    requested = []

    async def resolve(host, port):
        requested.append(host)
        return [(2, ("10.0.0.1", port))]

    async with receiving() as receiver, delivering(whole, resolve=resolve):
        # At registration the name does not resolve here, so it is taken; now it means an inner network.
        subscription = await whole.subscribe(type="webhook", url=f"http://rebound.invalid:{receiver.port}/", **FAST)
        await whole.publish(1)
        attempts = await until(lambda: attempts_of(whole, subscription["id"]))
        assert attempts[-1]["error"] == "The URL's host is in an internal network, which is not called."
        assert "rebound.invalid" in requested
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


async def test_what_came_into_the_log_by_no_door_of_ours_holds_up_nobody(whole, delivery):
    _, js = whole.link
    async with receiving() as receiver:
        await whole.subscribe(type="webhook", url=receiver.url)
        pulled = await whole.subscribe(type="pull")
        await js.publish(whole.plane.snapshot.channel("trades")[0].stored("trades"), b"\xff\xfe not text")
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
