from __future__ import annotations

import asyncio
import time

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.limits.settling import DELAY_REQUEST_MAX_S
from gateway.protocol import Protocol
from gateway.snapshot.picture import Limit, Metric
from gateway.tests.limiter.support import call, principal, refusal


async def test_delay_holds_back_until_it_is_allowed(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 20, 1.0, exceed="delay")))
    began_at = time.monotonic()
    for _ in range(35):
        await limiter.charge(one, messages_in=1)
    assert time.monotonic() - began_at >= 0.7


async def test_delayed_callers_all_get_their_turn(limiter):
    caller = principal(Limit(Metric.MESSAGES_IN, 20, 1.0, exceed="delay"))
    async with asyncio.timeout(30):
        await asyncio.gather(*(limiter.charge(call(caller), messages_in=1) for _ in range(40)))


async def test_a_delayed_caller_may_go_away_and_costs_nothing(limiter):
    caller = principal(Limit(Metric.MESSAGES_IN, 2, 20.0, exceed="delay"))
    await limiter.charge(call(caller), messages_in=2)
    waiting = [asyncio.create_task(limiter.charge(call(caller), messages_in=1)) for _ in range(5)]
    await asyncio.sleep(0.05)
    await stop_tasks(*waiting)
    await limiter.look(caller)
    assert limiter.left(caller)[0]["reset_s"] <= 20


@pytest.mark.parametrize("then", [(), (Limit(Metric.MESSAGES_IN, 100, 1.0, exceed="delay"),)])
async def test_who_is_held_back_goes_on_when_its_limits_are_lifted(limiter, then):
    caller = principal(Limit(Metric.MESSAGES_IN, 1, 50.0, exceed="delay"))
    calls = [call(caller) for _ in range(4)]
    await limiter.charge(calls[0], messages_in=1)
    waiting = [asyncio.create_task(limiter.charge(one, messages_in=1)) for one in calls]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    for one in calls:
        one.principal = principal(*then)
    async with asyncio.timeout(20):  # the limit would hold the last of them for three minutes
        await asyncio.gather(*waiting)


async def test_a_request_is_delayed_for_seconds_at_most(limiter):
    caller = principal(Limit(Metric.REQUESTS, 1, 60.0, exceed="delay"))
    await limiter.admit(call(caller, Protocol.HTTP))
    refused = await refusal(limiter.admit(call(caller, Protocol.HTTP)))
    assert refused.retry_after_s > DELAY_REQUEST_MAX_S


async def test_close_ends_the_connection(limiter):
    one = call(principal(Limit(Metric.MESSAGES_IN, 1, 60.0, exceed="close")))
    await limiter.charge(one, messages_in=1)
    assert (await refusal(limiter.charge(one, messages_in=1))).fatal
