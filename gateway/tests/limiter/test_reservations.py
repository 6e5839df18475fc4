from __future__ import annotations

import pytest

from gateway.limits.reserving import TOKENS_OUT_DEFAULT
from gateway.snapshot.picture import Limit, Metric
from gateway.tests.limiter.support import call, principal, refusal, reported


async def test_what_was_reserved_and_not_used_is_there_for_others_at_once(limiter, other):
    caller = principal(Limit(Metric.TOKENS_OUT, 1000, 36_000.0), Limit(Metric.TOKENS_IN, 500, "month"))
    mine = await limiter.reserve(call(caller), tokens_in=400, tokens_out=900)
    await refusal(other.reserve(call(caller), tokens_in=100, tokens_out=500))
    limiter.correct(mine, tokens_in=10, tokens_out=100)
    await limiter.look(caller)
    theirs = await other.reserve(call(caller), tokens_in=450, tokens_out=800)
    other.correct(theirs, tokens_in=0, tokens_out=0)
    await other.look(caller)
    await limiter.look(caller)
    assert {fact["metric"]: fact["remaining"] for fact in limiter.left(caller)} == {"tokens_out": 900, "tokens_in": 490}


@pytest.mark.parametrize("used", [10, 12, 8])
async def test_after_an_ai_call_nothing_is_held_of_what_others_may_need(clocked, other, used):
    limiter, _ = clocked
    caller = principal(Limit(Metric.TOKENS_IN, 1000, 36_000_000.0))
    reserved = await limiter.reserve(call(caller), tokens_in=10, tokens_out=0)
    await limiter.look(caller)
    limiter.correct(reserved, tokens_in=used, tokens_out=0)
    await limiter.look(caller)
    await other.look(caller)
    assert other.left(caller)[0]["remaining"] == 1000 - used


async def test_what_was_reserved_and_not_used_is_returned(limiter):
    one = call(principal(Limit(Metric.TOKENS_OUT, 1000, 36_000.0)))
    reserved = await limiter.reserve(one, tokens_in=0, tokens_out=1000)
    limiter.correct(reserved, tokens_in=0, tokens_out=600)
    await limiter.reserve(one, tokens_in=0, tokens_out=400)
    await refusal(limiter.reserve(one, tokens_in=0, tokens_out=1))


async def test_what_was_used_beyond_what_was_reserved_is_owed_on_every_process(limiter, other):
    caller = principal(Limit(Metric.TOKENS_OUT, 1000, 36_000.0))
    reserved = await limiter.reserve(call(caller), tokens_in=0, tokens_out=100)
    limiter.correct(reserved, tokens_in=0, tokens_out=1500)
    await limiter.look(caller)
    refused = await refusal(other.reserve(call(caller), tokens_in=0, tokens_out=10))
    assert 510 * 36 - 10 < refused.retry_after_s < 510 * 36 + 10
    refused = await refusal(limiter.reserve(call(caller), tokens_in=0, tokens_out=10))
    assert 510 * 36 - 10 < refused.retry_after_s < 510 * 36 + 10


async def test_without_a_maximum_what_is_left_is_reserved_and_no_more_than_usual(limiter, other):
    caller = principal(Limit(Metric.TOKENS_OUT, 1500, 36_000.0))
    first = await limiter.reserve(call(caller), tokens_in=0, tokens_out=None)
    assert first.tokens_out == TOKENS_OUT_DEFAULT
    second = await other.reserve(call(caller), tokens_in=0, tokens_out=None)
    assert second.tokens_out == 1500 - TOKENS_OUT_DEFAULT
    await refusal(limiter.reserve(call(caller), tokens_in=0, tokens_out=None))


async def test_a_reservation_that_no_bucket_holds_is_refused_for_good(limiter):
    limits = Limit(Metric.TOKENS_OUT, 1000, 60.0), Limit(Metric.TOKENS_OUT, 10, 1.0, mode="shadow")
    refused = await refusal(limiter.reserve(call(principal(*limits)), tokens_in=0, tokens_out=1001))
    assert (refused.retry_after_s, refused.members) == (None, {"tokens_max": 1000})
    reserved = await limiter.reserve(call(principal(*limits)), tokens_in=0, tokens_out=1000)
    assert reserved.tokens_out == 1000
    assert reported(limiter, "shadowed") == {("tokens_out-per-1s", "acme"): 1}
