"""The clock is set by an hour each way: limits, leases and deadlines do not feel it, expiries do as they must."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from gateway.call import Call
from gateway.concurrency.clock_jumps import ClockJumps
from gateway.connections.open import Connections
from gateway.credentials.api_keys import Credential
from gateway.handlers.tests.test_events import listening
from gateway.identity.failed_keys import FailedKeys
from gateway.limiter import Limiter
from gateway.limits.counters import Terms
from gateway.limits.store import SLOT_S, LimitStore
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit, Metric, Snapshot
from gateway.snapshot.principal import Principal
from gateway.tests.clock import EACH_WAY, HOUR_S, Clock
from gateway.tests.event_plane import channel
from gateway.tests.event_plane import running as events_running

SLOW = Limit(Metric.MESSAGES_IN, 3, 3600.0)
HELD = Limit(Metric.MESSAGES_IN, 4, 1.0, burst=1, exceed="delay")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
async def redis(redis_url):
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def limiter(redis):
    limiter = Limiter(redis, owner="process-1")
    await limiter.start()
    yield limiter
    await limiter.stop()


def call(*limits):
    return Call(Protocol.WEBSOCKET, "/x", "192.0.2.1", principal=Principal("acme", "k1", "gold", limits=limits))


def test_a_jump_is_reported_once_and_slewing_never(clock):
    jumps = ClockJumps()
    assert jumps.jumped_s() == 0
    clock.jump(HOUR_S)
    assert jumps.jumped_s() == pytest.approx(HOUR_S, abs=1)
    assert jumps.jumped_s() == 0
    clock.jump(-HOUR_S)
    assert jumps.jumped_s() == pytest.approx(-HOUR_S, abs=1)
    clock.jump(0.5)
    assert jumps.jumped_s() == 0


@EACH_WAY
async def test_a_jump_neither_refills_a_limit_nor_delays_a_caller_longer(limiter, clock, jump_s):
    one = call(SLOW)
    for _ in range(3):
        await limiter.charge(one, messages_in=1)
    clock.jump(jump_s)
    with pytest.raises(Refused) as caught:
        await limiter.charge(one, messages_in=1)
    assert 1000 < caught.value.retry_after_s <= 1200


@EACH_WAY
async def test_a_delayed_caller_waits_no_longer(limiter, clock, jump_s):
    one = call(HELD)
    waiting = asyncio.gather(*(limiter.charge(one, messages_in=1) for _ in range(3)))
    await asyncio.sleep(0.05)
    clock.jump(jump_s)
    async with asyncio.timeout(20):
        await waiting


@EACH_WAY
async def test_a_shared_bucket_is_never_more_than_full_after_a_jump(redis, jump_s):
    """What the store kept an hour off its clock is what it finds after that was set."""
    store = LimitStore(redis)
    assert (await store.lease("b", 0.01, 5, Terms(5, 5, 5))).tokens == 5
    await redis.hset("b", "at", float(await redis.hget("b", "at")) - jump_s * 1e6)
    found = await store.lease("b", 0.01, 5, Terms(5, 1, 5))
    if jump_s > 0:
        assert (found.tokens, found.left) == (5, 0)
    else:
        assert found.left == pytest.approx(0, abs=0.1)
        # It fills again from now on, not only when the hour has passed once more.
        await redis.hset("b", "at", float(await redis.hget("b", "at")) - 200e6)
        assert (await store.lease("b", 0.01, 5, Terms(2, 2, 2))).tokens == 2
    await store.stop()


async def test_a_month_that_is_reached_twice_is_one_month(redis):
    store = LimitStore(redis)
    assert (await store.lease("q", 0, 10, Terms(4, 4, 4))).left == 6
    this = int(await redis.hget("q", "at"))
    await redis.hset("q", "at", this + 1)  # the clock was set back over the end of the month
    assert (await store.lease("q", 0, 10, Terms(1, 1, 1))).left == 5
    assert int(await redis.hget("q", "at")) == this + 1
    await redis.hset("q", "at", this + 12)  # it had been a year ahead
    assert (await store.lease("q", 0, 10, Terms(1, 1, 1))).left == 4
    assert int(await redis.hget("q", "at")) == this
    await redis.hset("q", "at", this - 1)
    assert (await store.lease("q", 0, 10, Terms(1, 1, 1))).left == 9
    await store.stop()


async def test_a_crashed_process_locks_nobody_out_when_the_clock_is_set_back(redis):
    store = LimitStore(redis)
    assert await store.take_slot("open", "dead:1", 1) == (True, 0)
    lapses_at = await redis.zscore("open", "dead:1")
    await redis.zadd("open", {"dead:1": lapses_at + HOUR_S * 1000})
    assert (await store.take_slot("open", "new:1", 1))[0] is False
    assert await redis.zscore("open", "dead:1") <= lapses_at + SLOT_S * 1000
    await redis.zadd("open", {"dead:1": lapses_at + HOUR_S * 1000})
    assert await store.renew_slots("open", ["other:1"]) == 2
    assert await redis.zscore("open", "dead:1") <= lapses_at + SLOT_S * 1000
    await store.stop()


@EACH_WAY
async def test_slots_that_expired_by_a_jump_are_taken_again_at_once(limiter, redis, clock, jump_s):
    await limiter.admit(call(Limit(Metric.OPEN_CONNECTIONS, 1)))
    (key,) = [key async for key in redis.scan_iter("open:*")]
    await redis.delete(key)  # as the store does when its clock jumps on
    clock.jump(jump_s)
    async with asyncio.timeout(4):  # sooner than the next heartbeat
        while not await redis.exists(key):
            await asyncio.sleep(0.01)
    with pytest.raises(Refused) as caught:
        await limiter.admit(call(Limit(Metric.OPEN_CONNECTIONS, 1)))
    assert caught.value.reason is Reason.TOO_MANY_CONNECTIONS


@EACH_WAY
def test_failed_keys_are_counted_as_before(clock, jump_s):
    failed, refused = FailedKeys(2), Refused(Reason.UNAUTHENTICATED)
    assert failed.charged("192.0.2.1", refused) is failed.charged("192.0.2.1", refused) is refused
    clock.jump(jump_s)
    assert 50 < failed.charged("192.0.2.1", refused).retry_after_s <= 60


@EACH_WAY
async def test_a_key_expires_when_the_clock_says_so(clock, jump_s):
    key = {"id": "k1", "consumer": "acme", "digest": "", "expires_at": time.time() + HOUR_S / 2}
    snapshot = Snapshot.from_documents(
        {"tier": [{"name": "gold"}], "consumer": [{"name": "acme", "tier": "gold"}], "key": [key]}
    )
    connections, closed = Connections(snapshot), []
    one = Call(Protocol.MQTT, "", "192.0.2.1", credential=Credential("key", ""), principal=snapshot.principal("k1"))
    connections.open(one, closed.append)
    connections.start()
    clock.jump(jump_s)
    await asyncio.sleep(0.6)
    assert [refused.reason for refused in closed] == ([Reason.TOKEN_EXPIRED] if jump_s > 0 else [])
    clock.jump(HOUR_S * 2)
    async with asyncio.timeout(10):
        while not closed:
            await asyncio.sleep(0.01)
    await connections.stop()


@EACH_WAY
async def test_a_drain_ends_in_its_own_time(clock, jump_s):
    connections = Connections(Snapshot())
    one = Call(Protocol.MQTT, "", "192.0.2.1", principal=Principal("acme", "k1", "gold"), is_anonymous=True)
    connections.open(one, lambda refused: None)  # never leaves
    began_at = time.monotonic()
    draining = asyncio.create_task(connections.drain(0.5))
    await asyncio.sleep(0.05)
    clock.jump(jump_s)
    async with asyncio.timeout(20):
        await draining
    assert time.monotonic() - began_at >= 0.4


@EACH_WAY
async def test_heartbeats_of_a_stream_continue(nats_url, tmp_path, clock, jump_s):
    async with (
        events_running(nats_url, tmp_path, [channel("trades")], sse_heartbeat_s=0.2) as plane,
        listening(plane, ("channel", "trades")) as exchange,
    ):
        await exchange.until(b"retry: ")
        clock.jump(jump_s)
        await exchange.until(b":\n\n:\n\n")
        (connection,) = plane.connections
        assert connection.closing is None
