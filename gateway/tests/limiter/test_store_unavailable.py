from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from gateway.limiter import Limiter
from gateway.protocol import Protocol
from gateway.refusals import Reason
from gateway.snapshot.picture import Limit, Metric
from gateway.tests.limiter.support import OPEN, Clock, admitted, call, principal, refusal, reported


async def until_back(limiter: Limiter) -> None:
    async with asyncio.timeout(5):
        while limiter.store.is_unavailable:
            await asyncio.sleep(0.05)


async def test_open_limits_are_enforced_here_alone_while_the_store_is_away(own_valkey, shaken):
    caller = principal(Limit(Metric.REQUESTS, 20, 3600.0), OPEN)
    await shaken.admit(call(caller, Protocol.HTTP))
    own_valkey.stop()
    began_at = time.monotonic()
    assert await admitted(shaken, [call(caller, Protocol.HTTP) for _ in range(50)]) == 19
    assert await admitted(shaken, [call(caller) for _ in range(5)]) == 2
    assert time.monotonic() - began_at < 2
    own_valkey.start()
    await until_back(shaken)
    assert reported(shaken, "unshared")["requests-per-3600s", "acme"] >= 17
    assert (await refusal(shaken.admit(call(caller, Protocol.HTTP)))).reason is Reason.RATE_LIMITED
    assert (await refusal(shaken.admit(call(caller)))).reason is Reason.TOO_MANY_CONNECTIONS


async def test_closed_limits_refuse_while_the_store_is_away_and_admit_again_after(own_valkey, shaken):
    caller = principal(
        Limit(Metric.REQUESTS, 20, 3600.0, fail="closed"), Limit(Metric.OPEN_CONNECTIONS, 5, fail="closed")
    )
    own_valkey.stop()
    for protocol in (Protocol.HTTP, Protocol.WEBSOCKET):
        refused = await refusal(shaken.admit(call(caller, protocol)))
        assert refused.reason is Reason.OVERLOADED
        assert refused.retry_after_s >= 1
    own_valkey.start()
    await until_back(shaken)
    await shaken.admit(call(caller, Protocol.HTTP))
    await shaken.admit(call(caller))


async def test_a_quota_spent_while_the_store_is_away_is_paid_when_it_is_back(own_valkey, shaken):
    caller = principal(Limit(Metric.REQUESTS, 1000, "month"))
    await shaken.admit(call(caller, Protocol.HTTP))
    own_valkey.stop()
    assert await admitted(shaken, [call(caller, Protocol.HTTP) for _ in range(300)]) == 300
    own_valkey.start()
    await until_back(shaken)
    async with asyncio.timeout(5):
        while shaken.left(caller)[0]["remaining"] != 699:
            await asyncio.sleep(0.05)
            await shaken.look(caller)


@pytest.mark.parametrize("is_idle", [False, True])
async def test_a_quota_begins_anew_with_the_month_while_the_store_is_away(own_valkey, is_idle):
    clock, client = Clock(), Redis.from_url(own_valkey.url)
    limiter = Limiter(client, owner="process-1", clock=clock)
    await limiter.start()
    caller = principal(Limit(Metric.REQUESTS, 20, "month"))
    await limiter.admit(call(caller, Protocol.HTTP))
    [bucket] = await client.keys("lim:*")
    async with asyncio.timeout(5):
        while is_idle and float(await client.hget(bucket, "used")) != 1:
            clock.now += 1
            await asyncio.sleep(0.05)  # until the lease is returned
    own_valkey.stop()
    assert await admitted(limiter, [call(caller, Protocol.HTTP) for _ in range(50)]) == 19
    clock.now += 32 * 86_400
    async with asyncio.timeout(5):
        while limiter.left(caller)[0]["remaining"] != 20:
            await asyncio.sleep(0.05)
        assert await admitted(limiter, [call(caller, Protocol.HTTP) for _ in range(50)]) == 20
    await limiter.stop()
    await client.aclose()


async def test_a_frozen_store_holds_nobody_up(own_valkey, shaken):
    caller = principal(Limit(Metric.REQUESTS, 10**6, 1.0))
    await shaken.admit(call(caller, Protocol.HTTP))
    own_valkey.freeze()
    try:
        strangers = [call(principal(*caller.limits, consumer=f"c{n}"), Protocol.HTTP) for n in range(100)]
        began_at = time.monotonic()
        assert await admitted(shaken, strangers) == 100
        assert time.monotonic() - began_at < 2
    finally:
        own_valkey.thaw()
    await until_back(shaken)
