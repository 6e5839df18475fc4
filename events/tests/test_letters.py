import asyncio
import base64
import itertools
import json
from datetime import UTC, datetime

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import OperationalError

from audit import bus
from audit.models import Change
from audit.tests.conftest import in_thread, running, until
from consumers.services import create_consumer, create_tier
from events import dead_letter_intake, letters
from events.letters import discard, record_dead_letters, redrive
from events.models import DeadLetter, DeadLetterPosition, Subscription
from events.services import create_channel, delete_channel, update_channel
from gateway.durable.dead_letter import DeadEvent, read_letter, store_letter
from gateway.link.nats import DEAD_STREAM, DEAD_SUBJECT, ensure_infrastructure, read_batch
from gateway.log.event import from_headers
from gateway.log.event_log import EventLog
from gateway.log.streams import ensure_stream
from gateway.snapshot.picture import Snapshot

pytestmark = pytest.mark.django_db(transaction=True)

LETTER = {
    "channel": "sensors/{id}",
    "address": "sensors/7",
    "reason": "invalid-payload",
    "detail": "`value` is required.",
    "pointer": "/value",
    "consumer": "acme",
    "protocol": "mqtt",
    "attempts": 1,
    "event": {"data": {"unit": "C"}},
    "dead_at": "2026-11-23T10:00:00.5Z",
}


def keep(*documents, first=1, made_at="2026"):
    whole = [document if isinstance(document, bytes) else orjson.dumps(document) for document in documents]
    record_dead_letters(list(enumerate(whole, first)), made_at)


def test_a_letter_is_kept_with_its_fault():
    keep(LETTER)
    letter = DeadLetter.objects.get()
    assert letter.event == LETTER["event"]
    assert letter.representation() == {name: LETTER[name] for name in LETTER if name != "event"} | {
        "id": letter.id,
        "subscription": "",
        "event_bytes": len('{"data": {"unit": "C"}}'),
        "dead_at": "2026-11-23T10:00:00.500000Z",
    }


def test_a_letter_is_kept_once_however_often_it_is_read():
    keep(LETTER, LETTER)
    keep(LETTER, LETTER, LETTER)
    assert list(DeadLetter.objects.order_by("sequence").values_list("sequence", flat=True)) == [1, 2, 3]
    assert letters.position("2026") == 3


def test_a_letter_that_was_discarded_does_not_come_back():
    keep(LETTER)
    discard(DeadLetter.objects.get(), by="ann")
    keep(LETTER)
    assert not DeadLetter.objects.exists()


def test_sequences_of_another_stream_are_other_letters():
    keep(LETTER, LETTER, made_at="2026")
    keep(LETTER, made_at="2027")
    assert DeadLetter.objects.count() == 3
    assert (letters.position("2026"), letters.position("2027"), letters.position("2028")) == (2, 1, 0)


@pytest.mark.parametrize(
    "unreadable", [b"", b"{", b"[]", b"1", b"{}", LETTER | {"event": 1}, LETTER | {"attempts": "x"}]
)
def test_a_letter_that_cannot_be_read_holds_up_nobody(unreadable, caplog):
    keep(LETTER, unreadable, LETTER)
    assert DeadLetter.objects.count() == 2
    assert letters.position("2026") == 3
    assert "dead letter 2 could not be read" in caplog.text


def test_a_letter_is_cut_and_mended_to_what_a_database_can_hold():
    keep(LETTER | {"detail": "a\x00" + "b" * 2000, "event": {"data": "a\x00b"}, "dead_at": "at noon"})
    letter = DeadLetter.objects.get()
    assert letter.detail.startswith("a\ufffdb")
    assert len(letter.detail) == 1000
    assert set(letter.event) == {"data_base64"}
    assert letter.dead_at.tzinfo is not None


def test_nothing_is_half_kept(monkeypatch):
    def fail(*arguments, **named):
        raise OperationalError("the disk is full")

    monkeypatch.setattr(DeadLetterPosition, "save", fail)
    with pytest.raises(OperationalError):
        keep(LETTER)
    assert not DeadLetter.objects.exists()
    assert letters.position("2026") == 0


def test_discarding_is_recorded_without_the_event_which_is_kept_no_longer():
    keep(LETTER)
    letter = DeadLetter.objects.get()
    stale = DeadLetter.objects.get()
    discard(letter, by="ann")
    change = Change.objects.get()
    assert (change.actor, change.kind, change.action, change.note) == ("ann", "dead-letter", "deleted", "discarded")
    assert (change.before["address"], change.before["reason"]) == ("sensors/7", "invalid-payload")
    assert "event" not in change.before
    with pytest.raises(ValidationError, match="was deleted meanwhile"):
        discard(stale, by="ann")


async def dead_letter(js, **changes):
    """Have one dead letter on a declared channel that has its stream."""
    channel = await sync_to_async(create_channel)(address="sensors/{id}", by="ann")
    await ensure_stream(js, channel.document())
    await sync_to_async(keep)(LETTER | changes)
    return channel, await DeadLetter.objects.aget()


async def stored(client, channel):
    messages = await read_batch(client, channel.document()["stream"], ">", 1)
    return [from_headers(channel.address, m.headers["Nats-Subject"], m.headers, m.data) for m in messages]


async def test_a_redriven_event_is_on_its_channel_again_and_the_letter_gone(link):
    client, js = link
    channel, letter = await dead_letter(js)
    await in_thread(redrive, letter, by="ann")
    (event,) = await stored(client, channel)
    assert (event.address, event.source, event.data) == ("sensors/7", "/consumers/acme", b'{"unit":"C"}')
    frame = json.loads(event.frame())
    assert frame["data"] == {"unit": "C"}
    assert frame["time"].startswith("20")
    assert not await DeadLetter.objects.aexists()
    assert (await Change.objects.afirst()).note == "redriven"


@pytest.mark.parametrize(("given", "kept"), [(f"00-{'a' * 32}-{'b' * 16}-01", True), ("00-x", False), (5, False)])
async def test_a_redriven_event_is_part_of_the_trace_that_it_was_part_of(link, given, kept):
    client, js = link
    channel, letter = await dead_letter(js, event={"data": 1, "traceparent": given})
    await in_thread(redrive, letter, by="ann")
    (event,) = await stored(client, channel)
    assert event.traceparent == (given if kept else None)


JPEG = bytes(range(256))


@pytest.mark.parametrize(
    ("content_type", "media_type", "data"),
    [
        ("json", "application/json", b'{ "n": 1.50, "big": 123456789012345678901234567890 }'),
        ("json", "application/vnd.acme+json", b"1"),
        ("text", "text/plain", b"123"),
        ("text", "text/csv; charset=utf-8", "a;\u00f6\n".encode()),
        ("text", "text/plain", b"nul \x00"),
        ("image/jpeg", "image/jpeg", JPEG),
        ("bytes", "text/plain; charset=latin-1", b"\xff"),
        ("bytes", "application/octet-stream", b""),
        ("bytes", "application/octet-stream", JPEG * 3_900),
    ],
)
@pytest.mark.parametrize("subscription", ["", "sub_1"])
async def test_a_letter_of_every_type_is_shown_and_redriven_as_it_was(
    link, content_type, media_type, data, subscription
):
    client, js = link
    channel = await sync_to_async(create_channel)(address="sensors/{id}", content_type=content_type, by="ann")
    await ensure_infrastructure(js)
    await ensure_stream(js, channel.document())
    picture, _ = Snapshot.from_documents({"channel": [channel.document()]}).channel("sensors/7")
    log = EventLog(client, js)
    await log.start()
    attributes = {
        "id": "e1",
        "source": "/plant",
        "type": "reading",
        "partitionkey": "p",
        "time": "2026-01-01T00:00:00Z",
    }
    event = DeadEvent.refused(data, media_type, attributes, None)
    letter = {name: LETTER[name] for name in LETTER if name not in ("event", "channel", "dead_at")}
    await store_letter(log, picture, letter | {"subscription": subscription}, event)
    await log.stop()
    last = (await js.stream_info(DEAD_STREAM)).state.last_seq
    (message,) = await read_batch(client, DEAD_STREAM, f"{DEAD_SUBJECT}.>", last)
    await sync_to_async(keep)(read_letter(message.headers, message.data))
    row = await DeadLetter.objects.aget()
    assert shown_of(row.event) == data
    assert row.event["content_type"] == media_type
    if subscription:
        await sync_to_async(a_subscription)(subscription)
    await in_thread(redrive, row, by="ann")
    (stored_,) = await stored(client, channel)
    assert (stored_.data, stored_.content_type, stored_.published_id) == (data, media_type, "e1")
    assert (stored_.type, stored_.source, stored_.extensions["partitionkey"]) == ("reading", "/plant", "p")
    assert stored_.time == "2026-01-01T00:00:00Z"


def shown_of(event):
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    return event.get(
        "data_text", event["data"] if isinstance(event["data"], str) else json.dumps(event["data"])
    ).encode()


def a_subscription(id_):
    consumer = create_consumer(name="acme", tier=create_tier(name="free", by="ann"), by="ann")
    Subscription.objects.create(
        id=id_, consumer=consumer, type="pull", channel="sensors/7", order="channel", max_in_flight=1, max_attempts=1,
        retry_schedule_s=[0], ack_wait_s=1, position=0, created_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content_type", "event", "fault"),
    [
        ("json", {"data": "on", "content_type": "text/plain"}, "takes JSON, not text/plain"),
        ("text", {"data_base64": "//4=", "content_type": "text/plain"}, "not text in UTF-8"),
        ("bytes", {"data_base64": "ew==", "content_type": "application/json"}, "not JSON"),
        ("bytes", {"data_base64": "AAA=", "content_type": "image/png", "is_cut": True}, "only its beginning"),
    ],
)
async def test_a_letter_that_its_channel_does_not_take_stays(link, content_type, event, fault):
    _, js = link
    channel, letter = await dead_letter(js, event=event)
    await sync_to_async(update_channel)(channel, content_type=content_type, by="ann")
    with pytest.raises(ValidationError, match=fault):
        await in_thread(redrive, letter, as_is=True, by="ann")


async def test_redriving_twice_stores_once(link):
    client, js = link
    channel, letter = await dead_letter(js)
    stale = await DeadLetter.objects.aget()
    await in_thread(redrive, letter, by="ann")
    with pytest.raises(ValidationError, match="was deleted meanwhile"):
        await in_thread(redrive, stale, by="ann")
    assert len(await stored(client, channel)) == 1


async def test_a_letter_stays_where_its_event_cannot_go_back(link):
    _, js = link
    channel, letter = await dead_letter(js, event={"data_base64": "AAA="})
    with pytest.raises(ValidationError, match="not JSON"):
        await in_thread(redrive, letter, by="ann")
    await sync_to_async(delete_channel)(channel, by="ann")
    letter.event = {"data": 1}
    with pytest.raises(ValidationError, match="channel no longer exists"):
        await in_thread(redrive, letter, by="ann")
    assert await DeadLetter.objects.aexists()


async def test_what_the_schema_refused_is_looked_at_again(link):
    client, js = link
    channel, letter = await dead_letter(js)
    await sync_to_async(update_channel)(channel, schema={"type": "object", "required": ["value"]}, by="ann")
    with pytest.raises(ValidationError, match=r"still rejects it, at /: .*required"):
        await in_thread(redrive, letter, by="ann")
    await in_thread(redrive, letter, as_is=True, by="ann")
    assert [event.data for event in await stored(client, channel)] == [b'{"unit":"C"}']


async def test_a_letter_stays_while_nats_is_away(nats_server, link, settings):
    _, js = link
    _, letter = await dead_letter(js)
    nats_server.kill()
    with pytest.raises(bus.Unavailable):
        await in_thread(redrive, letter, by="ann")
    settings.NATS_URL = ""
    with pytest.raises(bus.Unavailable):
        await in_thread(redrive, letter, by="ann")
    assert await DeadLetter.objects.aexists()


async def test_a_hung_nats_costs_two_seconds_and_no_letter(nats_server, link):
    _, js = link
    _, letter = await dead_letter(js)
    nats_server.freeze()
    try:
        with pytest.raises(bus.Unavailable):
            await in_thread(redrive, letter, by="ann")
    finally:
        nats_server.thaw()
    assert await DeadLetter.objects.aexists()


async def bury(js, number):
    await js.publish(f"{DEAD_SUBJECT}.CH_1", orjson.dumps(LETTER | {"detail": str(number)}))


async def details():
    return [letter.detail async for letter in DeadLetter.objects.order_by("id")]


async def has(count):
    return await DeadLetter.objects.acount() == count


async def test_letters_become_rows_in_order_and_once_through_restarts(nats_server, link):
    client, js = link
    numbers = itertools.count()
    await ensure_infrastructure(js)
    for expected in (3, 6):
        async with running(dead_letter_intake.run, client, js):
            for _ in range(3):
                await bury(js, next(numbers))
            await until(lambda expected=expected: has(expected))
    async with running(dead_letter_intake.run, client, js):
        nats_server.kill()
        nats_server.start()
        await until(lambda: is_back(js))
        await bury(js, next(numbers))
        await until(lambda: has(7))
    assert await details() == [str(number) for number in range(7)]


async def is_back(js):
    try:
        return await js.account_info()
    except Exception:
        return False


async def test_letters_of_an_emptied_nats_are_new_ones(nats_server, link):
    client, js = link
    async with running(dead_letter_intake.run, client, js):
        await until(lambda: is_made(js))
        await bury(js, 1)
        await until(lambda: has(1))
        await asyncio.to_thread(nats_server.empty)
        await until(lambda: is_made(js))
        await bury(js, 2)
        await until(lambda: has(2))
    assert await details() == ["1", "2"]


async def is_made(js):
    try:
        return await js.stream_info("DEAD")
    except Exception:
        return False


async def test_two_projectors_at_once_keep_each_letter_once(link):
    client, js = link
    async with running(dead_letter_intake.run, client, js), running(dead_letter_intake.run, client, js):
        await until(lambda: is_made(js))
        for number in range(20):
            await bury(js, number)
        await until(lambda: has(20))
    assert await details() == [str(number) for number in range(20)]


@pytest.mark.parametrize("subscription", ["", "sub_1"])
def test_a_letter_whose_event_has_expired_is_not_redriven(subscription):
    event = {"data": 1, "extensions": {"expirytime": "2020-01-01T00:00:00Z"}}
    keep(LETTER | {"event": event, "subscription": subscription})
    with pytest.raises(ValidationError, match="has expired"):
        redrive(DeadLetter.objects.get(), by="ann")
    assert DeadLetter.objects.count() == 1
