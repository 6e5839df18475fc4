"""Connectors against the brokers themselves: Kafka, RabbitMQ, NATS, Redis Streams, Mosquitto; AWS as moto plays it."""

import asyncio
import contextlib
import gc
import json
import sys

import pytest

from gateway.channels.publication import Publication
from gateway.concurrency.stopping import stop_tasks
from gateway.connectors import kafka
from gateway.connectors import running as connecting
from gateway.connectors.running import Running
from gateway.link.nats import DEAD_STREAM, DEAD_SUBJECT, read_batch
from gateway.snapshot.documents import Connector
from gateway.tests.event_plane import channel, running
from gateway.tests.nats_server import NatsServer
from gateway.tests.valkey_server import ValkeyServer
from tests.services.labs import LABS

pytestmark = [
    pytest.mark.services,
    pytest.mark.xdist_group("connectors"),
    # aiokafka loses hold of a connection that it was making when its broker went away; the collector closes it.
    pytest.mark.filterwarnings("ignore:(Unclosed AIOKafkaConnection|unclosed|loop is closed):ResourceWarning"),
]

WITHIN_S = 60
GOES_ON_S = 9.0
"""Less than the ack wait or visibility timeout of any broker; the brokers of the tests share few cores."""
from_sources = pytest.mark.parametrize("broker", [name for name, lab in LABS.items() if lab.is_source], indirect=True)
over_restarts = pytest.mark.parametrize(
    "broker", [name for name, lab in LABS.items() if lab.can_restart], indirect=True
)
"""What plays the others keeps nothing over a restart."""
that_can_be_bound = pytest.mark.parametrize(
    "broker", [name for name, lab in LABS.items() if lab.bound_bytes], indirect=True
)
"""What bounds the messages of the others is above what an event may hold."""
SCHEMA = {"type": "object", "required": ["n"]}
CHANNELS = [channel("out"), channel("in", schema=SCHEMA, on_invalid="dead-letter")]


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    log, store = NatsServer(tmp_path_factory.mktemp("nats")), ValkeyServer(tmp_path_factory.mktemp("valkey"))
    log.start()
    store.start()
    yield log, store
    store.stop()
    log.kill()


@pytest.fixture(scope="module", params=LABS)
def broker(request, tmp_path_factory):
    lab = LABS[request.param](tmp_path_factory.mktemp(request.param))
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture
async def lab(broker, monkeypatch):
    broker.fresh()
    for name, value in broker.secrets.items():
        monkeypatch.setenv(name, value)
    await broker.prepare()
    yield broker
    if broker.type == "kafka":
        gc.collect()


@pytest.fixture
async def plane(engines, tmp_path):
    log, store = engines
    async with running(log.url, tmp_path, CHANNELS, redis_url=store.url) as plane:
        yield plane


@contextlib.asynccontextmanager
async def connected(plane, lab, direction, **more):
    document = Connector(
        id=lab.name,
        name=lab.name,
        type=lab.type,
        direction=direction,
        channel="in" if direction == "source" else "out",
        options=lab.source() if direction == "source" else lab.sink(),
        **more,
    )
    connector = Running(plane, document)
    task = asyncio.create_task(connector.run())
    try:
        yield connector
    finally:
        await stop_tasks(task)


async def until(look):
    async with asyncio.timeout(WITHIN_S):
        while not (seen := await look()):
            await asyncio.sleep(0.1)
    return seen


async def events(plane, count):
    """Return the events of the channel `in` once there are this many."""

    async def look():
        stored = await plane.log.history(next(iter(plane.snapshot.channel("in"))), "in", 0, 1000)
        return stored if len(stored) >= count else None

    return await until(look)


async def got(lab, count):
    async def look():
        with contextlib.suppress(OSError):
            found = await lab.got()
            return found if len(found) >= count else None

    return await until(look)


def numbered(first, last):
    return [(b'{"n": %d}' % number, {}) for number in range(first, last)]


async def send(plane, first, last):
    for number in range(first, last):
        await plane.publisher.publish(plane.call(), Publication("out", b'{"n": %d}' % number))


def in_order(lab, found):
    return found if lab.is_ordered else sorted(found)


@from_sources
async def test_a_source_brings_what_its_broker_holds_in_order_and_goes_on_where_it_was(plane, lab):
    async with connected(plane, lab, "source") as connector:
        if lab.type == "mqtt":
            await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put(numbered(0, 8))
        await events(plane, 8)
    await lab.put(numbered(8, 16))
    async with connected(plane, lab, "source"):
        stored = await events(plane, 16)
    assert in_order(lab, [int(event.data[6:-1]) for event in stored]) == list(range(16))


@from_sources
async def test_a_source_that_died_before_it_committed_brings_it_again_and_where_it_can_it_is_stored_once(
    plane, lab, monkeypatch
):
    publish_, died = Running._publish, []

    async def die_once(self, call, records):
        await publish_(self, call, records)
        if not died:
            died.append(len(records))
            raise RuntimeError("died here")

    monkeypatch.setattr(Running, "_publish", die_once)
    async with connected(plane, lab, "source") as connector:
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put(numbered(0, 10))
        await until(lambda: asyncio.sleep(0, connector.health.state == "failing"))
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put(numbered(10, 11))

        async def all_there():
            stored = [int(event.data[6:-1]) for event in await events(plane, 11)]
            return stored if 10 in stored else None

        stored = await until(all_there)
    assert set(stored) == set(range(11))
    if lab.keeps_ids:
        assert len(stored) == 11


@from_sources
async def test_a_source_that_is_killed_goes_on_soon_and_in_order(plane, lab):
    arguments = [lab.type, lab.name, json.dumps(lab.source()), "6"]
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.services.dying_reader", *arguments, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN_S):
        assert await reader.stdout.readline() == b"open\n"
        await lab.put(numbered(0, 6))
        assert await reader.stdout.readline() == b"read\n"
    reader.kill()
    await reader.wait()
    await lab.put(numbered(6, 10))
    async with connected(plane, lab, "source"), asyncio.timeout(GOES_ON_S):
        stored = await events(plane, 10)
    assert in_order(lab, [int(event.data[6:-1]) for event in stored]) == list(range(10))


@from_sources
async def test_attributes_and_trace_context_come_in(plane, lab):
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    names = {"specversion": "1.0", "id": "e1", "source": "/tills/7", "type": "sold"}
    headers = {f"{lab.prefix}{name}": value for name, value in names.items()} | {"traceparent": trace}
    async with connected(plane, lab, "source") as connector:
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put([(b'{"n": 1}', headers)])
        (event,) = await events(plane, 1)
    assert (event.published_id, event.source, event.type) == ("e1", "/tills/7", "sold")
    assert event.traceparent == trace


@from_sources
async def test_a_record_that_is_no_event_is_buried_and_holds_up_nothing(plane, lab):
    before = len(await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.>", 1))
    async with connected(plane, lab, "source") as connector:
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put([(b'{"n": 1}', {}), (b"no JSON", {}), (b'{"m": 1}', {}), (b'{"n": 2}', {})])
        stored = await events(plane, 2)

        async def buried():
            return len(await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.>", 1)) - before == 2

        await until(buried)
        assert connector.health.buried == 2
    assert sorted(event.data for event in stored) == [b'{"n": 1}', b'{"n": 2}']


async def test_a_sink_writes_what_is_published_in_order_and_goes_on_where_it_was(plane, lab):
    await send(plane, 0, 4)
    async with connected(plane, lab, "sink", start="earliest"):
        await send(plane, 4, 8)
        await got(lab, 8)
    await send(plane, 8, 16)
    async with connected(plane, lab, "sink", start="earliest"):
        found = await got(lab, 16)
    assert in_order(lab, [int(data[6:-1]) for data, _ in found]) == list(range(16))


async def test_a_sink_that_is_killed_before_it_acknowledged_goes_on_soon_and_in_order(plane, engines, lab):
    await send(plane, 0, 6)
    document = {
        "id": lab.name, "name": lab.name, "type": lab.type, "direction": "sink", "channel": "out",
        "options": lab.sink(), "start": "earliest",
    }  # fmt: skip
    arguments = [engines[0].url, json.dumps(CHANNELS[0]), json.dumps(document), "6"]
    sink = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.services.dying_sink", *arguments, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN_S):
        assert await sink.stdout.readline() == b"written\n"
    sink.kill()
    await sink.wait()
    await send(plane, 6, 10)
    async with connected(plane, lab, "sink", start="earliest"), asyncio.timeout(GOES_ON_S):
        numbers = await until(lambda: _written(lab, 9))
    # What was written and not acknowledged is written again, before what is newer, or once where the broker knows it.
    again, once = [*range(6), *range(10)], [*range(10)]
    assert in_order(lab, numbers) in (in_order(lab, again), once)


async def _written(lab, last):
    """Return the numbers of the events that the broker holds, once the last is among them."""
    numbers = [int(data[6:-1]) for data, _ in await lab.got()]
    return numbers if last in numbers else None


async def test_a_sink_says_what_the_event_is(plane, lab):
    attributes = {"id": "e1", "source": "/tills/7", "type": "sold"}
    publication = Publication(
        "out", b'{"n":1}', attributes=attributes, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    )
    async with connected(plane, lab, "sink", start="earliest"):
        await plane.publisher.publish(plane.call(), publication)
        ((data, headers),) = await got(lab, 1)
    assert data == b'{"n":1}'
    assert {name: headers[f"{lab.prefix}{name}"] for name in attributes} == attributes
    assert headers["traceparent"].startswith("00-aaa")


@over_restarts
async def test_nothing_is_lost_while_a_broker_is_away(plane, lab, monkeypatch):
    monkeypatch.setattr(connecting, "RETRY_MAX_S", 1.0)
    async with connected(plane, lab, "sink", start="earliest") as connector:
        await send(plane, 0, 5)
        await got(lab, 5)
        await asyncio.to_thread(lab.stop)
        await send(plane, 5, 10)
        await until(lambda: asyncio.sleep(0, connector.health.state == "failing"))
        await asyncio.to_thread(lab.start)
        found = await got(lab, 10)
    seen = list(dict.fromkeys(int(data[6:-1]) for data, _ in found))
    assert seen == list(range(10))


@over_restarts
async def test_a_source_says_that_its_broker_is_away_and_goes_on_when_it_is_back(plane, lab, monkeypatch):
    monkeypatch.setattr(connecting, "RETRY_MAX_S", 1.0)
    monkeypatch.setattr(kafka, "CHECK_S", 1.0)
    async with connected(plane, lab, "source") as connector:
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put(numbered(0, 3))
        await events(plane, 3)
        await asyncio.to_thread(lab.stop)
        await until(lambda: asyncio.sleep(0, connector.health.state == "failing"))
        await asyncio.to_thread(lab.start)
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await lab.put(numbered(3, 6))
        stored = await events(plane, 6)
    assert {int(event.data[6:-1]) for event in stored} == set(range(6))


@that_can_be_bound
async def test_what_a_broker_will_never_take_is_buried_and_holds_up_nothing(plane, lab):
    await lab.bind()
    before = len(await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.>", 1))
    good = [b'{"n": %d}' % number for number in range(4)]
    large = b'{"n": "%s"}' % (b"x" * 2 * lab.bound_bytes)
    for data in (*good[:2], large, good[2], large, good[3]):
        await plane.publisher.publish(plane.call(), Publication("out", data))
    async with connected(plane, lab, "sink", start="earliest") as connector:
        found = await got(lab, 4)
        await until(lambda: asyncio.sleep(0, connector.health.buried == 2))
        await until(lambda: asyncio.sleep(0, connector.health.passed == 6))
    # Those before it may be written once more.
    assert list(dict.fromkeys(data for data, _ in found))[:2] == good[:2]
    assert {data for data, _ in await got(lab, 4)} == set(good)
    assert len(await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.>", 1)) - before == 2


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_a_record_whose_headers_hold_nothing_and_one_without_a_value_hold_up_nothing(plane, lab):
    async with connected(plane, lab, "source"):
        records = [(b'{"n": 1}', [("x", None), ("ce_type", b"\xff")]), (None, []), (b'{"n": 2}', [])]
        await asyncio.to_thread(lab.put_raw, records)
        stored = await events(plane, 2)
    assert [event.data for event in stored] == [b'{"n": 1}', b'{"n": 2}']


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_a_topic_that_is_made_anew_is_read_though_its_offsets_come_again(plane, lab):
    async with connected(plane, lab, "source"):
        await lab.put(numbered(0, 2))
        await events(plane, 2)
    await asyncio.to_thread(lab.make_anew)
    async with connected(plane, lab, "source"):
        await lab.put([(b'{"n": 0}', {}), (b'{"n": 7}', {})])
        stored = await events(plane, 4)
    assert sorted(int(event.data[6:-1]) for event in stored) == [0, 0, 1, 7]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
async def test_a_name_that_was_used_with_another_body_is_buried_and_not_lost(plane, lab):
    before = len(await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.>", 1))
    headers = {"cloudEvents:specversion": "1.0", "cloudEvents:id": "e1", "cloudEvents:source": "/tills/7"}
    async with connected(plane, lab, "source") as connector:
        await lab.put([(b'{"n": 1}', headers), (b'{"n": 2}', headers), (b'{"n": 3}', {})])
        stored = await events(plane, 2)
        await until(lambda: asyncio.sleep(0, connector.health.buried == 1))
    assert [event.data for event in stored] == [b'{"n": 1}', b'{"n": 3}']
    assert len(await read_batch(plane.nats, DEAD_STREAM, f"{DEAD_SUBJECT}.>", 1)) - before == 1


@pytest.mark.parametrize("broker", ["redis-streams"], indirect=True)
async def test_a_sink_passes_on_what_came_after_the_log_was_emptied(plane, lab):
    async with connected(plane, lab, "sink", start="latest") as connector:
        await until(lambda: asyncio.sleep(0, connector.health.state == "running"))
        await until(lambda: _has_reader(plane))
        await send(plane, 0, 2)
        await got(lab, 2)
        # As an emptied store is: no stream, no reader; the next publish makes the stream anew.
        await plane.js.delete_stream(plane.snapshot.channel("out")[0].stream)
        await send(plane, 2, 5)
        found = await got(lab, 5)
    assert list(dict.fromkeys(int(data[6:-1]) for data, _ in found)) == [*range(5)]


async def _has_reader(plane):
    return await plane.js.consumers_info(plane.snapshot.channel("out")[0].stream)
