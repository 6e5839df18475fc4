"""How many jobs may be open at once, on a real Valkey and a real NATS."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway.handlers import job as handlers
from gateway.handlers import me
from gateway.limiter import Limiter
from gateway.limits import open_jobs
from gateway.link.nats import JOBS_BUCKET
from gateway.refusals import Reason, Refused
from gateway.tests.event_plane import HttpExchange, running

TWO = {"metric": "open_jobs", "amount": 2}
KEYS = "open:{consumer:acme}:open_jobs"


@pytest.fixture
async def plane(nats_server, valkey, redis, tmp_path):
    async with running(nats_server.url, tmp_path, [], redis_url=valkey.url) as plane:
        await plane.js.delete_key_value(JOBS_BUCKET)
        await plane.js.create_key_value(bucket=JOBS_BUCKET)
        bucket = await plane.js.key_value(JOBS_BUCKET)
        await bucket.put("type.work", orjson.dumps({"name": "work", "schema": {"type": "object"}}))
        plane.change_tier([TWO])
        yield plane


async def submit(plane, *, headers=None, **more):
    exchange = HttpExchange(b"{}")
    named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    call = plane.call(peer=exchange, headers=named, parameters={"type": "work"}, **more)
    try:
        await handlers.submit(plane, call)
    except Refused as refused:
        refused.reported = dict(plane.limiter.headers(call))
        raise
    return exchange


async def refusal(plane, **more):
    with pytest.raises(Refused) as caught:
        await submit(plane, **more)
    return caught.value


async def fill(plane):
    return [(await submit(plane)).parsed["id"] for _ in range(2)]


async def end(plane, redis, job_id, *, is_told=True):
    """Do what the control plane does at a job's end; or what is left of it where the store is away meanwhile."""
    if is_told:
        await redis.zrem(KEYS, job_id)
    document = await change(plane, job_id, state="completed", result=1)
    assert document["places"] == [KEYS]


async def change(plane, job_id, **changes):
    bucket = await plane.js.key_value(JOBS_BUCKET)
    document = orjson.loads((await bucket.get(job_id)).value) | changes
    await bucket.put(job_id, orjson.dumps(document))
    return document


async def left(plane):
    exchange = HttpExchange()
    await me.show(plane, plane.call(peer=exchange))
    [fact] = exchange.parsed["limits"]
    return fact["remaining"]


async def test_the_third_of_two_is_refused_with_when_to_come_back(plane):
    await fill(plane)
    refused = await refusal(plane)
    assert (refused.reason, refused.retry_after_s, refused.policies) == (Reason.RATE_LIMITED, 5, ("open_jobs",))
    assert refused.reported[b"ratelimit-policy"] == b'"open_jobs";q=2;qu="concurrent-requests"'
    assert refused.reported[b"ratelimit"] == b'"open_jobs";r=0'
    keys = await (await plane.js.key_value(JOBS_BUCKET)).keys()
    assert len(keys) == 3


async def test_accepted_work_tells_how_many_more_may_be_open(plane):
    assert (await submit(plane)).headers["ratelimit"] == '"open_jobs";r=1'
    assert (await submit(plane)).headers["ratelimit"] == '"open_jobs";r=0'


async def test_a_job_that_ends_makes_room_for_the_next(plane, redis):
    first, _ = await fill(plane)
    await refusal(plane)
    await end(plane, redis, first)
    assert (await submit(plane)).status == 202
    await refusal(plane)


async def test_a_place_that_nobody_gave_back_is_found_when_places_are_short(plane, redis):
    first, _ = await fill(plane)
    await end(plane, redis, first, is_told=False)
    assert (await submit(plane)).status == 202
    await refusal(plane)


async def test_a_place_whose_job_never_came_is_found_only_once_it_is_old(plane, redis, monkeypatch):
    await redis.zadd(KEYS, {"job_lost": 9e15})
    await submit(plane)
    await refusal(plane)
    monkeypatch.setattr(open_jobs, "BEING_STORED_S", -1)
    monkeypatch.setattr(open_jobs, "SAMPLE_EVERY_S", 0)
    assert (await submit(plane)).status == 202


async def test_a_repeat_takes_no_place_and_is_answered_though_all_are_taken(plane):
    named = {"idempotency-key": "k1"}
    first = (await submit(plane, headers=named)).parsed["id"]
    await submit(plane)
    assert (await submit(plane, headers=named)).parsed["id"] == first
    await refusal(plane)
    assert await left(plane) == 0


async def test_a_repeat_of_an_ended_job_takes_no_place(plane, redis):
    named = {"idempotency-key": "k1"}
    await end(plane, redis, (await submit(plane, headers=named)).parsed["id"])
    await submit(plane, headers=named)
    assert await left(plane) == 2


async def test_many_at_once_over_two_processes_are_as_many_as_are_allowed(plane, redis):
    other = Limiter(redis, owner="other")
    planes = plane.limiter, other
    answers = []

    async def one(number):
        plane.limiter = planes[number % 2]
        answers.append(await submit(plane))

    body = await asyncio.gather(*(one(number) for number in range(20)), return_exceptions=True)
    plane.limiter = planes[0]
    assert (len(answers), sum(isinstance(each, Refused) for each in body)) == (2, 18)
    await other.stop()


async def test_each_key_has_places_of_its_own_where_the_limit_says_so_and_all_limits_hold(plane):
    plane.change_tier([TWO | {"amount": 3}, TWO | {"scope": "key"}])
    await fill(plane)
    refused = await refusal(plane)
    assert "of 2 open jobs" in refused.detail
    exchange = HttpExchange()
    await me.show(plane, plane.call(peer=exchange))
    assert [fact["remaining"] for fact in exchange.parsed["limits"]] == [1, 0]


async def test_a_shadow_refuses_nothing_and_counts_what_it_would_have(plane):
    plane.change_tier([TWO | {"mode": "shadow"}])
    for _ in range(3):
        assert (await submit(plane)).status == 202
    [record] = plane.limiter.usage_records(with_levels=False)
    assert (record["name"], record["shadowed"], record["refused"]) == ("open_jobs", 1, 0)


async def test_refusals_are_counted_for_who_watches_limits(plane):
    await fill(plane)
    await refusal(plane)
    [record] = plane.limiter.usage_records(with_levels=False)
    assert (record["consumer"], record["name"], record["refused"]) == ("acme", "open_jobs", 1)


async def test_a_caller_sees_what_is_left(plane, redis):
    assert await left(plane) == 2
    first, _ = await fill(plane)
    assert await left(plane) == 0
    await end(plane, redis, first, is_told=False)
    assert await left(plane) == 1


async def test_who_has_many_jobs_open_is_shown_as_near_the_limit_until_they_end(plane, redis):
    first, second = await fill(plane)
    [record] = plane.limiter.usage_records(with_levels=True)
    assert (record["name"], record["level"], record["left"], record["resets_at"]) == ("open_jobs", 1.0, 0, None)
    for job_id in first, second:
        await end(plane, redis, job_id)
    await plane.limiter._jobs.recount()
    assert plane.limiter.usage_records(with_levels=True) == []


async def test_a_limit_that_fails_closed_lets_no_job_in_while_the_store_is_away(plane, valkey):
    plane.change_tier([TWO | {"fail": "closed"}])
    valkey.stop()
    try:
        assert (await refusal(plane)).reason is Reason.OVERLOADED
    finally:
        valkey.start()


async def test_while_the_store_is_away_each_process_holds_the_limit_alone(plane, valkey, redis):
    valkey.stop()
    try:
        first, _ = await fill(plane)
        refused = await refusal(plane)
        assert (refused.reason, refused.reported[b"ratelimit"]) == (Reason.RATE_LIMITED, b'"open_jobs";r=0')
        await change(plane, first, state="completed")
        await asyncio.sleep(open_jobs.SAMPLE_EVERY_S)
        assert (await submit(plane)).status == 202
        await refusal(plane)
    finally:
        valkey.start()
    [record] = plane.limiter.usage_records(with_levels=False)
    assert (record["unshared"], record["refused"]) == (3, 2)


async def test_a_store_that_is_back_is_told_of_the_jobs_let_in_meanwhile(plane, valkey, redis):
    valkey.stop()
    try:
        let_in = await fill(plane)
    finally:
        valkey.start()
    await redis.connection_pool.disconnect()
    async with asyncio.timeout(10):
        while await redis.zcard(KEYS) < 2:
            await plane.limiter.store.ping()
            await asyncio.sleep(0.02)
    assert sorted(name.decode() for name in await redis.zrange(KEYS, 0, -1)) == sorted(let_in)
    await refusal(plane)
    await end(plane, redis, let_in[0])
    assert (await submit(plane)).status == 202


async def test_a_shadow_refuses_nothing_while_the_store_is_away(plane, valkey):
    plane.change_tier([TWO | {"mode": "shadow", "fail": "closed"}])
    valkey.stop()
    try:
        assert [(await submit(plane)).status for _ in range(3)] == [202] * 3
    finally:
        valkey.start()
    [record] = plane.limiter.usage_records(with_levels=False)
    assert (record["shadowed"], record["refused"]) == (1, 0)


@pytest.mark.parametrize(("scope", "name"), [("consumer:acme", "open_jobs"), ("ip:127.0.0.1", "open_jobs-ip")])
async def test_a_dry_run_knows_of_the_jobs_of_other_processes(plane, redis, scope, name):
    plane.change_key(scopes=["jobs:*"])
    plane.change_tier([TWO | {"scope": scope.partition(":")[0]}])
    await redis.zadd(f"open:{{{scope}}}:open_jobs", {"job_1": 9e15, "job_2": 9e15})
    exchange = HttpExchange()
    await me.show(plane, plane.call(peer=exchange, query=b"would=jobs:work"))
    body = exchange.parsed
    assert (body["allowed"], body["reason"], body["policy"]) == (False, "rate-limited", name)


async def test_a_job_that_cannot_be_stored_gives_its_place_back(plane, redis, monkeypatch):
    async def fail(*_):
        raise TimeoutError

    bucket = await plane.jobs._open()
    monkeypatch.setattr(bucket, "create", fail)
    with pytest.raises(Refused, match="overloaded"):
        await submit(plane)
    monkeypatch.undo()
    async with asyncio.timeout(5):
        while await redis.zcard(KEYS):
            await asyncio.sleep(0.02)
    for _ in range(2):
        await submit(plane)
