"""Channels whose templates match the same addresses: each event belongs to one of them, and readers follow it."""

import asyncio

import pytest

from gateway.channels.publication import Publication
from gateway.log.catch_up import EARLIEST
from gateway.log.streams import delete_stream, ensure_stream, retire_stream
from gateway.tests.event_plane import channel, running

WIDE, NARROW = channel("a/{x}"), channel("a/b")
OLD = channel("old/{x}", subject_prefix="")


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, [WIDE, OLD]) as plane:
        await delete_stream(plane.js, NARROW["stream"])
        yield plane


class Reader:
    def __init__(self):
        self.data, self.gaps = [], []

    async def follow(self, plane, address, subject, position=None):
        found = plane.snapshot.channel_covering(subject)
        assert found.address == address
        return await plane.hub.subscribe_from(found, subject, position, self.deliver, on_gap=self.gaps.append)

    def deliver(self, event):
        self.data.append((event.address, event.data))

    async def has(self, *data):
        async with asyncio.timeout(20):
            while self.data[-len(data) :] != list(data):
                await asyncio.sleep(0.02)


async def publish(plane, address, data):
    await plane.publisher.publish(plane.call(), Publication(address, data))


async def create(plane, document):
    await ensure_stream(plane.js, document)
    plane.snapshot.apply([("channel", document["address"], document)])


async def remove(plane, document):
    plane.snapshot.apply([("channel", document["address"], None)])
    await retire_stream(plane.js, document["stream"])


async def settled(plane, listener, document):
    async with asyncio.timeout(20):
        while listener.stream != document["stream"] or listener.catching_up is not None:
            await asyncio.sleep(0.02)


async def test_a_channel_gets_no_events_of_a_more_specific_one(plane):
    await create(plane, NARROW)
    wide, narrow, every = Reader(), Reader(), Reader()
    await wide.follow(plane, "a/{x}", "a.*")
    await narrow.follow(plane, "a/b", "a.b")
    await plane.hub.subscribe_confirmed("a.>", every.deliver)
    for number, address in enumerate(["a/b", "a/c", "a/b", "a/d"]):
        await publish(plane, address, b"%d" % number)
    await wide.has(("a/c", b"1"), ("a/d", b"3"))
    await narrow.has(("a/b", b"0"), ("a/b", b"2"))
    await every.has(("a/b", b"0"), ("a/c", b"1"), ("a/b", b"2"), ("a/d", b"3"))
    assert (len(wide.data), len(narrow.data)) == (2, 2)
    stored = await plane.log.history(plane.snapshot.channel("a/c")[0], "a.*", 0, 10)
    assert [event.address for event in stored] == ["a/c", "a/d"]


async def test_a_reader_follows_its_address_to_another_channel_and_back(plane):
    reader = Reader()
    listener = await reader.follow(plane, "a/{x}", "a.b", EARLIEST)
    await publish(plane, "a/b", b"1")
    await create(plane, NARROW)
    await publish(plane, "a/b", b"2")
    await settled(plane, listener, NARROW)
    await publish(plane, "a/b", b"3")
    await reader.has(("a/b", b"1"), ("a/b", b"2"), ("a/b", b"3"))
    await remove(plane, NARROW)
    await publish(plane, "a/b", b"4")
    await settled(plane, listener, WIDE)
    await publish(plane, "a/b", b"5")
    await reader.has(("a/b", b"4"), ("a/b", b"5"))
    assert [data for _, data in reader.data] == [b"1", b"2", b"3", b"4", b"5"]
    assert reader.gaps == []
    listener.stop()


async def test_readers_of_a_channel_stay_with_it_and_events_stay_where_they_are(plane):
    await publish(plane, "a/b", b"1")
    reader = Reader()
    listener = await reader.follow(plane, "a/{x}", "a.*", EARLIEST)
    await create(plane, NARROW)
    await publish(plane, "a/b", b"2")
    await publish(plane, "a/c", b"3")
    await reader.has(("a/b", b"1"), ("a/c", b"3"))
    assert listener.stream == WIDE["stream"]
    again = Reader()
    await again.follow(plane, "a/b", "a.b", EARLIEST)
    await again.has(("a/b", b"2"))
    assert len(again.data) == 1


async def test_a_stopped_reader_is_not_moved(plane):
    reader = Reader()
    listener = await reader.follow(plane, "a/{x}", "a.b")
    await create(plane, NARROW)
    listener.stop()
    await publish(plane, "a/b", b"1")
    other = Reader()
    await other.follow(plane, "a/b", "a.b", EARLIEST)
    await other.has(("a/b", b"1"))
    assert reader.data == []


async def test_a_channel_of_an_earlier_version_is_read_as_before(plane):
    assert (await plane.js.stream_info(OLD["stream"])).config.subjects[0] == "old.*"
    await publish(plane, "old/x", b"1")
    reader, every = Reader(), Reader()
    listener = await reader.follow(plane, "old/{x}", "old.*", EARLIEST)
    await plane.hub.subscribe_confirmed(">", every.deliver)
    await publish(plane, "old/y z", b"2")
    await reader.has(("old/x", b"1"), ("old/y z", b"2"))
    await every.has(("old/y z", b"2"))
    listener.stop()


@pytest.mark.parametrize(
    "address", ["a/x>y", "a/x*y", "a/my room", "a/>", "a/*", "a/\t\r\n", "a/\u00a0", "a/é💡", "a/.."]
)
async def test_an_address_is_read_from_the_log_and_live_whatever_it_holds(plane, address):
    """Koenkk/zigbee2mqtt#86, evcc-io/evcc#33818, arendst/Tasmota#10258: topics hold spaces (MQTT 5, 4.7.3)."""
    await publish(plane, address, b"1")
    await publish(plane, "a/other", b"0")
    found, _ = plane.snapshot.channel(address)
    reader = Reader()
    subject = (await plane.publisher.admit(plane.call(), Publication(address, b"0"))).subject
    listener = await reader.follow(plane, "a/{x}", subject, EARLIEST)
    await publish(plane, address, b"2")
    await reader.has((address, b"1"), (address, b"2"))
    assert [event.address for event in await plane.log.history(found, subject, 0, 10)] == [address] * 2
    assert len(reader.data) == 2
    listener.stop()
