"""Batches that NATS refuses for their size, and names without end: neither stops the accounting."""

import random
import secrets
from types import SimpleNamespace

import orjson
import pytest

from gateway.call import Call, Reply
from gateway.connections.open import Connections
from gateway.link.nats import USAGE_STREAM, USAGE_SUBJECT, connect, ensure_infrastructure, read_batch
from gateway.metering import batches, labels
from gateway.metering.batches import BATCH_MAX_BYTES, Batches, cut
from gateway.metering.labels import TEXT_MAX_BYTES, UNKNOWN, bounded
from gateway.metering.usage import Usage
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.tests.event_plane import channel
from gateway.tests.nats_server import NatsServer

ACME = Principal(consumer="acme", key="k1", tier="gold")
REFUSED_BEFORE = (Reason.UNAUTHENTICATED, Reason.FORBIDDEN, Reason.NOT_FOUND, Reason.METHOD_NOT_ALLOWED)


@pytest.fixture
def snapshot():
    return Snapshot.from_documents({"channel": [channel("trades"), channel("sensors/{id}")]})


@pytest.fixture
async def nats(nats_server):
    client, js = await connect(nats_server.url, "tests")
    await ensure_infrastructure(js)
    await js.purge_stream(USAGE_STREAM)
    yield SimpleNamespace(client=client, js=js)
    await client.close()


@pytest.fixture
def nats_id():
    """The start of message ids that no other test has used: NATS stores each id once."""
    return secrets.token_hex(4)


def usage_of(snapshot, js, **more):
    return Usage(
        SimpleNamespace(process=f"web-{secrets.token_hex(4)}", kind="web"), Connections(snapshot), snapshot, js, **more
    )


def refused(target, reason=Reason.UNAUTHENTICATED, principal=None):
    call = Call(Protocol.HTTP, "/x", "192.0.2.1", target=target)
    call.principal = principal
    return call, Reply(status=401, refused=Refused(reason))


async def stored(nats):
    messages = await read_batch(nats.client, USAGE_STREAM, f"{USAGE_SUBJECT}.>", 1, 1000)
    return [orjson.loads(message.data) for message in messages]


@pytest.fixture
def counted():
    return {"dropped": 0, "too_large": 0}


def queue(js, counted, max_payload=1024 * 1024):
    def count(name):
        counted[name] += 1

    return Batches(
        js,
        f"{USAGE_SUBJECT}.web-1",
        dropped=lambda: count("dropped"),
        too_large=lambda: count("too_large"),
        max_payload=lambda: max_payload,
    )


async def test_long_names_of_anonymous_callers_do_not_stop_the_accounting(nats, snapshot):
    usage = usage_of(snapshot, nats.js)
    for number in range(480):
        usage.call_ended(*refused(f"{number}" + "x" * 8000), 1)
    usage._gather()
    await usage._batches.send()
    (batch,) = await stored(nats)
    (tally,) = batch["tallies"]
    assert (tally["target"], tally["calls"], tally["consumer"]) == (UNKNOWN, 480, "")


async def test_many_large_records_become_batches_that_nats_stores(nats, nats_id, counted):
    batches_ = queue(nats.js, counted)
    records = [("closed", {"id": str(number), "text": "x" * 8000}) for number in range(480)]
    for number, part in enumerate(cut(batches_.encode(records))):
        batches_.add(f"{nats_id}-{number}", {"stopping": False}, part)
    assert max(len(batch.data) for batch in batches_._waiting) < BATCH_MAX_BYTES + 4096
    await batches_.send()
    found = await stored(nats)
    assert [row["id"] for batch in found for row in batch["closed"]] == [str(number) for number in range(480)]
    assert counted == {"dropped": 0, "too_large": 0}


@pytest.mark.parametrize("is_announced", [True, False], ids=["as NATS announced", "as NATS answers"])
async def test_what_nats_refuses_for_its_size_is_split_and_a_single_record_is_dropped(
    tmp_path, nats_id, counted, is_announced, caplog
):
    server = NatsServer(tmp_path, max_payload="64KB")
    server.start()
    client, js = await connect(server.url, "tests")
    try:
        await ensure_infrastructure(js)
        batches_ = queue(js, counted, client.max_payload if is_announced else 10**9)
        records = [("closed", {"id": str(number), "text": "x" * 8000}) for number in range(20)]
        records.insert(7, ("closed", {"id": "huge", "text": "x" * 100_000}))
        for number, part in enumerate(cut(batches_.encode(records))):
            batches_.add(f"{nats_id}-{number}", {"stopping": True}, part)
        batches_.add(f"{nats_id}-9", {"stopping": False}, batches_.encode([("closed", {"id": "after"})]))
        await batches_.send()
        found = await stored(SimpleNamespace(client=client))
    finally:
        await client.close()
        server.kill()
    ids = [row["id"] for batch in found for row in batch["closed"]]
    assert ids == [*(str(number) for number in range(20)), "after"]
    assert counted["dropped"] == 1
    assert counted["too_large"] > 1
    assert [batch["stopping"] for batch in found].count(True) == 1
    assert len([line for line in caplog.messages if "too large" in line]) == 1


async def test_a_stream_with_smaller_messages_is_served_too(nats, nats_id, counted):
    info = await nats.js.stream_info(USAGE_STREAM)
    info.config.max_msg_size = 20_000
    await nats.js.update_stream(info.config)
    try:
        batches_ = queue(nats.js, counted)
        records = batches_.encode([("closed", {"id": str(number), "text": "x" * 4000}) for number in range(16)])
        batches_.add(f"{nats_id}-1", {"stopping": False}, records)
        await batches_.send()
        assert sum(len(batch["closed"]) for batch in await stored(nats)) == 16
    finally:
        info.config.max_msg_size = -1
        await nats.js.update_stream(info.config)
    assert counted["dropped"] == 0


def test_a_record_that_cannot_be_encoded_or_sent_is_dropped_alone(counted):
    records = [("tallies", {"target": "a"}), ("tallies", {"target": "\ud800"}), ("closed", {"x": "x" * 300_000})]
    assert [data for _, data in queue(None, counted).encode(records)] == [b'{"target":"a"}']
    assert counted["dropped"] == 2


def test_the_queue_is_bounded_in_bytes(counted, monkeypatch):
    monkeypatch.setattr(batches, "BYTES_KEPT", 100_000)
    batches_ = queue(None, counted)
    for number in range(50):
        batches_.add(str(number), {}, batches_.encode([("closed", {"text": "x" * 9_000})]))
    assert batches_._bytes == sum(len(batch.data) for batch in batches_._waiting) <= 100_000
    assert len(batches_) + counted["dropped"] == 50


@pytest.mark.parametrize("text", ["x" * 8000, "é" * 200, "a" + "é" * 200, "😀" * 100, "\ud800" * 300])
def test_texts_are_cut_between_characters(text):
    shown = bounded(text)
    assert TEXT_MAX_BYTES - 3 <= len(shown.encode()) <= TEXT_MAX_BYTES
    assert shown == text[: len(shown)] or "\ud800" in text
    assert bounded("trades") == "trades"


def test_a_refused_call_is_labelled_with_a_name_that_exists(snapshot):
    of = labels.Labels(snapshot).of
    targets = ("trades", "sensors/1", "sensors/2", "nowhere", "/v1/me", "", "x" * 9000)
    for principal in (None, ACME):
        found = [of(refused(target, principal=principal)[0], "x", "", is_refused=True)[4] for target in targets]
        assert found == ["trades", "sensors/{id}", "sensors/{id}", UNKNOWN, "/v1/me", UNKNOWN, UNKNOWN]
    assert of(refused("sensors/1", principal=ACME)[0], "ok", "", is_refused=False)[4] == "sensors/1"


def test_a_job_type_is_known_once_a_job_of_it_was_created(snapshot):
    known = labels.Labels(snapshot)
    call, _ = refused("report", principal=ACME)
    call.handler = "job.submit"
    assert known.of(call, "x", "", is_refused=True)[4] == UNKNOWN
    known.of(call, "ok", "", is_refused=False)
    assert known.of(call, "x", "", is_refused=True)[4] == "report"


async def test_a_hostile_mix_makes_few_rows(nats, snapshot):
    usage = usage_of(snapshot, nats.js)
    chance = random.Random(13)
    for _ in range(12_000):
        name = "".join(chr(chance.choice((47, 97, 233, 0x4E2D, 0x1F600))) for _ in range(chance.randrange(60)))
        call, reply = refused(
            name * chance.choice((1, 100)), chance.choice(REFUSED_BEFORE), chance.choice((None, ACME))
        )
        call.protocol = chance.choice((Protocol.HTTP, Protocol.SSE, Protocol.WEBSOCKET))
        usage.call_ended(call, reply, 1)
    assert len(usage._tallies) <= 3 * 2 * len(REFUSED_BEFORE) * 2
    usage._gather()
    await usage._batches.send()
    tallies = [tally for batch in await stored(nats) for tally in batch["tallies"]]
    assert sum(tally["calls"] for tally in tallies) == 12_000
    assert max(len(tally["target"].encode()) for tally in tallies) <= TEXT_MAX_BYTES
