"""The live stream: over all processes, from the last minutes on, bounded."""

import asyncio
import time

import orjson
import pytest

from analytics import live as module
from analytics.live import Live
from gateway.link.nats import connect, ensure_infrastructure


def tally(**more):
    return {
        "minute": 0, "protocol": "http", "consumer": "acme", "key": "", "tier": "gold", "target": "quotes",
        "outcome": "ok", "error_class": "", "calls": 0, "messages_in": 0, "messages_out": 0, "bytes_in": 0,
        "bytes_out": 0, "throttled": 0, "latency_ms_sum": 0.0, "latency_ms_max": 0.0,
    } | more  # fmt: skip


def batch(process, sequence, **more):
    return {
        "process": process, "kind": "web", "sequence": sequence, "at": time.time(), "interval_s": 1.0, "open": [],
        "tallies": [], "opened": [], "flowing": [], "closed": [],
    } | more  # fmt: skip


@pytest.fixture
async def say(nats_url, settings):
    """Return a function that publishes a batch as a process does."""
    settings.NATS_URL = nats_url
    client, js = await connect(nats_url, "test")
    await ensure_infrastructure(js)
    await js.purge_stream("USAGE")  # the event store is shared with other tests

    async def say(content):
        await js.publish(f"_apimgmt.usage.{content['process']}", orjson.dumps(content))

    yield say
    await js.purge_stream("USAGE")
    await client.close()


@pytest.fixture
async def live():
    made = Live()
    yield made
    await made.stop()


def read(event):
    (line,) = (line for line in event.decode().splitlines() if line.startswith("data: "))
    return orjson.loads(line.removeprefix("data: "))


async def until(stream, is_seen):
    """Read ticks until what they came to together satisfies."""
    ticks = []
    async with asyncio.timeout(20):
        async for event in stream:
            ticks.append(read(event))
            if is_seen(ticks):
                return ticks
    raise AssertionError("the stream ended")


def total(ticks, name):
    return sum(sum(tick[name].values()) for tick in ticks)


async def test_batches_of_all_processes_are_one_stream(live, say):
    stream = live.watch()
    assert b"event: history" in await anext(stream)
    refused = tally(calls=2, outcome="rate-limited", target="trades")
    await say(batch("web-1", 1, tallies=[tally(calls=5)], open=[{"protocol": "sse", "count": 3}]))
    await say(batch("mqtt-1", 1, tallies=[refused], open=[{"protocol": "mqtt", "count": 4}]))
    await say(batch("mqtt-1", 1, tallies=[refused]))  # sent again: its acknowledgement was lost
    ticks = await until(stream, lambda ticks: total(ticks, "consumers") >= 7 and ticks[-1]["open"].get("mqtt"))
    assert ticks[-1]["open"] == {"sse": 3, "mqtt": 4}
    assert total(ticks, "refused") == 2
    assert total(ticks, "targets") == 7
    ticks += await until(stream, lambda more: sum(calls_of(ticks + more)) >= 6.9)
    assert sum(calls_of(ticks)) == pytest.approx(7, abs=0.1)


def calls_of(ticks):
    return [second["calls"].get("http", 0) for tick in ticks for second in tick["seconds"]]


async def test_the_first_page_starts_with_what_was_said_before_it(live, say):
    await say(batch("web-1", 1, at=time.time() - 30, tallies=[tally(calls=5)]))
    history = read(await anext(live.watch()))
    assert sum(second["calls"].get("http", 0) for second in history) == pytest.approx(5, abs=0.1)
    assert len(history) > 200


async def test_a_process_that_falls_silent_holds_nothing_open(live, say, monkeypatch):
    monkeypatch.setattr(module, "SILENT_AFTER_S", 0.0)
    stream = live.watch()
    await anext(stream)
    await say(batch("web-1", 1, tallies=[tally(calls=1)], open=[{"protocol": "sse", "count": 3}]))
    ticks = await until(stream, lambda ticks: total(ticks, "consumers") == 1)
    assert ticks[-1]["open"] == {}


async def test_connections_that_close_are_told_once(live, say):
    stream = live.watch()
    await anext(stream)
    await say(batch("web-1", 1, closed=[{"id": "c1"}]))
    await say(batch("web-1", 2, closed=[{"id": "c2"}]))
    ticks = await until(stream, lambda ticks: sum(len(tick["closed"]) for tick in ticks) == 2)
    ticks += await until(stream, lambda _: True)
    assert sorted(row["id"] for tick in ticks for row in tick["closed"]) == ["c1", "c2"]


async def test_what_is_no_batch_is_passed_over(live, say, nats_url):
    stream = live.watch()
    await anext(stream)
    client, _ = await connect(nats_url, "test")
    await client.publish("_apimgmt.usage.web-1", b"{")
    await client.publish("_apimgmt.usage.web-1", b'{"process": "web-1"}')
    await client.close()
    await say(batch("web-1", 1, tallies=[tally(calls=1)]))
    await until(stream, lambda ticks: total(ticks, "consumers") == 1)


async def test_one_page_too_many_is_told_to_come_later(live, say, monkeypatch):
    monkeypatch.setattr(module, "PAGES_MAX", 1)
    first, second = live.watch(), live.watch()
    assert b"event: history" in await anext(first)
    assert b"event: full" in await anext(second)
    await first.aclose()
    third = live.watch()
    assert b"event: history" in await anext(third)


async def test_a_page_is_let_go_when_the_process_drains(live, say):
    stream = live.watch()
    await anext(stream)
    await live.stop()
    async with asyncio.timeout(10):
        assert [event async for event in stream if b"data" not in event] == []


async def test_a_page_is_asked_to_come_again_after_a_while(live, say, monkeypatch):
    monkeypatch.setattr(module, "PAGE_LASTS_S", 0.0)
    assert len([event async for event in live.watch()]) == 1


async def test_without_nats_the_page_is_told_and_the_next_one_tries_again(live, say, settings, monkeypatch):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.5)
    there, settings.NATS_URL = settings.NATS_URL, "nats://127.0.0.1:1"
    assert [b"event: away" in event async for event in live.watch()] == [True]
    settings.NATS_URL = there
    monkeypatch.undo()
    assert b"event: history" in await anext(live.watch())
