from __future__ import annotations

import asyncio

from gateway.concurrency.stopping import stop_tasks
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Limit, Metric
from gateway.tests.limiter.support import OPEN, call, principal, refusal, reported


async def test_only_so_many_connections_are_open_over_all_processes(limiter, other):
    caller = principal(OPEN)
    first, second, third = call(caller), call(caller), call(caller)
    await limiter.admit(first)
    await other.admit(second)
    refused = await refusal(limiter.admit(third))
    assert refused.reason is Reason.TOO_MANY_CONNECTIONS
    assert refused.policies == ("open_connections",)
    assert refused.retry_after_s > 0
    other.released(second)
    other.released(second)
    async with asyncio.timeout(5):
        while True:
            try:
                await limiter.admit(third)
                break
            except Refused:
                await asyncio.sleep(0.01)
    await refusal(other.admit(call(caller)))


async def test_what_is_open_elsewhere_is_known_to_who_looks(limiter, other):
    caller = principal(OPEN)

    async def left():
        await limiter.look(caller)
        return limiter.left(caller)[0]["remaining"]

    held = [call(caller), call(caller)]
    assert await left() == 2
    for one in held:
        await other.admit(one)
    assert await left() == 0
    other.released(held[0])
    async with asyncio.timeout(5):
        while await left() != 1:
            await asyncio.sleep(0.01)


async def test_one_that_closes_and_opens_again_at_once_is_let_in(limiter):
    caller = principal(OPEN)
    held = [call(caller), call(caller)]
    for one in held:
        await limiter.admit(one)
    for _ in range(50):
        limiter.released(held.pop(0))
        held.append(call(caller))
        await limiter.admit(held[-1])


async def test_requests_take_no_slot(limiter):
    caller = principal(Limit(Metric.OPEN_CONNECTIONS, 0))
    await limiter.admit(call(caller, Protocol.HTTP))
    await refusal(limiter.admit(call(caller, Protocol.SSE)))


async def test_a_refused_connection_keeps_no_slot(limiter, redis):
    caller = principal(OPEN, Limit(Metric.CONNECTIONS, 1, 3600.0))
    await limiter.admit(call(caller))
    assert (await refusal(limiter.admit(call(caller)))).policies == ("connections-per-3600s",)
    await limiter.store.ping()
    assert await redis.zcard("open:{consumer:acme}:open_connections") == 1


async def test_callers_that_hang_up_while_they_are_admitted_keep_no_slot(limiter, redis):
    caller = principal(Limit(Metric.OPEN_CONNECTIONS, 1000))
    for wait_s in (0, 0.0001, 0.0003, 0.001) * 10:
        one = call(caller)
        task = asyncio.create_task(limiter.admit(one))
        await asyncio.sleep(wait_s)
        await stop_tasks(task)
        limiter.released(one)
    await limiter.store.ping()
    assert await redis.zcard("open:{consumer:acme}:open_connections") == 0


async def test_a_shadow_limit_of_connections_lets_all_in_and_counts(limiter):
    caller = principal(Limit(Metric.OPEN_CONNECTIONS, 1, mode="shadow"))
    for _ in range(3):
        await limiter.admit(call(caller))
    assert reported(limiter, "shadowed") == {("open_connections", "acme"): 2}
