"""``rate-limit`` on HTTP routes: limits of the route, fixed or returned by a hook."""

from types import SimpleNamespace

import pytest

from gateway.policies import rate_limit
from gateway.policies.tests.policed_route import limited_by, problem
from gateway.snapshot.picture import Metric
from gateway.tests import hooks_of_tests
from gateway.tests.http_plane import ask, caller_of
from gateway.tests.policed import policy

pytestmark = pytest.mark.usefixtures("operators_module")

GOOD = {"key": "a", "amount": 1, "per": 1}


async def test_a_hook_returns_the_limit_of_a_call(served):
    async with served(limited_by("limit_by_metadata")) as plane, caller_of(plane) as caller:
        statuses = [(await caller.ask("GET", "/echo")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert problem(await caller.ask("GET", "/echo"))[2]["violated-policies"] == ["route-requests-per-60s"]
        assert (await caller.ask("GET", "/echo", key=plane.other_key)).status == 200
        plane.snapshot.apply([("consumer", "acme", {"name": "acme", "tier": "free", "metadata": {"vip": True}})])
        assert (await caller.ask("GET", "/echo")).status == 200


async def test_a_hook_that_returns_limits_may_be_async(served):
    async with served(limited_by("limit_later")) as plane, caller_of(plane) as caller:
        assert [(await caller.ask("GET", "/echo")).status for _ in range(2)] == [200, 429]


async def test_a_limit_of_the_route_is_reported_beside_those_of_the_tier(served):
    limits = [{"metric": "requests", "amount": 9, "per": 60}]
    async with served(limited_by("limit_by_metadata"), limits=limits) as plane, caller_of(plane) as caller:
        answer = await caller.ask("GET", "/echo")
        assert answer.header("ratelimit-policy") == '"requests-per-60s";q=9;w=60, "route-requests-per-60s";q=2;w=60'
        assert answer.header("ratelimit") == '"requests-per-60s";r=8;t=7, "route-requests-per-60s";r=1;t=30'
    async with served(limited_by("limit_by_metadata")) as plane, caller_of(plane) as caller:
        assert (await caller.ask("GET", "/echo")).header("ratelimit-policy") == '"route-requests-per-60s";q=2;w=60'


@pytest.mark.parametrize("is_direct", [True], indirect=True)
@pytest.mark.parametrize(
    "answer",
    [
        5, [], "x", {}, {"key": "a"}, {**GOOD, "key": 5}, {**GOOD, "key": ""}, {**GOOD, "key": "a" * 300},
        {**GOOD, "amount": 0}, {**GOOD, "amount": -1}, {**GOOD, "amount": float("nan")}, {**GOOD, "amount": 1e999},
        {**GOOD, "amount": 10**16}, {**GOOD, "amount": True}, {**GOOD, "per": 0}, {**GOOD, "per": 10**9},
        {**GOOD, "burst": 0}, {**GOOD, "brust": 1},
    ],
)  # fmt: skip
async def test_a_call_whose_hook_returns_no_valid_limit_is_refused_as_internal(served, answer):
    hooks_of_tests.LIMIT["result"] = answer
    async with served(limited_by("limit_as_set")) as plane:
        assert problem(await ask(plane, "GET", "/echo"))[:2] == (500, "internal")
        assert plane.outcomes[0][0] == "function-nonsense"


async def test_a_limit_of_the_route_is_counted_for_each_caller_or_for_all(served):
    user = policy("rate-limit", rateLimitBy="user", requestsAllowed=1, timeWindowMinutes=1)
    async with served(user) as plane, caller_of(plane) as caller:
        assert [(await caller.ask("GET", "/echo")).status for _ in range(2)] == [200, 429]
        assert (await caller.ask("GET", "/echo", key=plane.other_key)).status == 200
    together = policy("rate-limit", rateLimitBy="all", requestsAllowed=1, timeWindowMinutes=1)
    async with served(together) as plane, caller_of(plane) as caller:
        assert (await caller.ask("GET", "/echo")).status == 200
        assert (await caller.ask("GET", "/echo", key=plane.other_key)).status == 429


async def test_the_limits_of_so_many_connections_are_remembered_and_the_oldest_forgotten(monkeypatch):
    monkeypatch.setattr(rate_limit, "CACHED_MAX", 3)
    calls = []

    async def function(call):
        calls.append(call)
        return GOOD

    function.name = "mine:limit_of"
    limit = rate_limit.FunctionLimit(Metric.MESSAGES_IN, function, None)
    monkeypatch.setattr(rate_limit, "hook_call", lambda call: call)
    connections = [SimpleNamespace(connection=SimpleNamespace(id=str(number)), principal=1) for number in range(5)]
    for call in [*connections, connections[4], connections[0]]:
        assert (await limit._limit(call))[1] == "mine:limit_of:a"
    assert calls == [*connections, connections[0]]
    assert len(limit._cached) == 3
