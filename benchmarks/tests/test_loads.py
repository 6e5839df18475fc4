"""The clients of the loads, against servers that do not do what is asked."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from benchmarks.loads import dialects, echo, fan_out, publishing
from benchmarks.loads.client import Counter
from benchmarks.sampling import WrongAnswer

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@asynccontextmanager
async def serving(answer):
    """Serve connections that are upgraded at once; ``answer`` returns what is sent for what was read."""

    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED)
        while data := await reader.read(65_536):
            writer.write(answer(data))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.sleep(0.05)  # the loads' own ends


def event_frame(number):
    return dialects.frame(b'{"mark":"%06d"}' % number)


def unmasked(data):
    message = echo.frame(echo.MESSAGE)
    return echo.RETURNED * (len(data) // len(message))


@pytest.mark.parametrize("cut", [3, 9, 20])
async def test_a_mark_that_reads_cut_is_counted_once(cut):
    counter = Counter([(b"", b"")])
    counter._steps = []
    data = b'{"mark":"000001"}{"mark":"000002"}'
    for start in range(0, len(data), cut):
        counter.received(data[start : start + cut])
    assert counter.count == 2


@pytest.mark.parametrize("cut", [1, 7, 17, 40])
async def test_the_time_of_an_event_is_kept_also_if_reads_cut_its_mark(cut):
    last_at = {}
    timed = fan_out.Timed([(b"", b"")], last_at)
    data = b'{"mark":"000001"}{"mark":"000002"}'
    for start in range(0, len(data), cut):
        timed.received(data[start : start + cut])
    assert (timed.count, sorted(last_at)) == (2, [1, 2])


async def test_an_echo_is_counted_by_message():
    async with serving(unmasked) as port:
        measured = await echo.run(["tunnel", port, "", "/"], [], 8, 0.2)
    assert measured["per_s"] > 0


async def test_an_echo_of_other_bytes_fails_the_run():
    async with serving(lambda data: unmasked(data).replace(b"ACME", b"EMCA")) as port:
        with pytest.raises(WrongAnswer, match="another message"):
            await echo.run(["tunnel", port, "", "/"], [], 1, 0.1)


async def test_a_publish_that_is_not_acknowledged_fails_the_run(monkeypatch):
    monkeypatch.setattr(publishing, "ACKNOWLEDGED_WITHIN_S", 0.1)
    silent = dialects.Dialect(0, (), ((dialects.upgrade("/", ""), b"\r\n\r\n"),), event_frame, b"ok")
    monkeypatch.setitem(dialects.DIALECTS, "silent", lambda port: replace(silent, port=port))
    async with serving(lambda _: b"") as port:
        with pytest.raises(WrongAnswer, match="0 of 32 events"):
            await publishing.run(["silent", port], [], [], 0.05)


async def test_a_delivery_that_is_missing_fails_the_run(monkeypatch):
    monkeypatch.setattr(fan_out, "DELIVERED_WITHIN_S", 0.1)
    async with serving(lambda _: b"") as port:
        spoken = ["tunnel", port, "", "/"]
        writer = ["stream", port, "", "trades"]
        monkeypatch.setitem(
            dialects.DIALECTS, "stream", lambda *_: replace(dialects.tunnel(port, "", "/"), publish=event_frame)
        )
        with pytest.raises(WrongAnswer, match="deliveries are missing"):
            await fan_out.run(spoken, writer, [], [], 3, 0.05)
