"""The policies of a route: their order, and what happens where one cannot be built."""

import pytest

from gateway.policies import route_policies
from gateway.policies.tests.policed_route import JSON, PERSON, problem
from gateway.snapshot.picture import Policy, Route
from gateway.tests.http_plane import ask
from gateway.tests.policed import policy

pytestmark = pytest.mark.usefixtures("operators_module")


async def test_policies_apply_in_the_order_that_the_route_names_them(served):
    first = policy("transform", inbound={"set": {"/name": "ann"}})
    second = policy("validate", schema=PERSON)
    async with served(first, second) as plane:
        assert (await ask(plane, "POST", "/echo", JSON, body=b"{}")).status == 200
    async with served(second, first) as plane:
        assert (await ask(plane, "POST", "/echo", JSON, body=b"{}")).status == 422


async def test_a_policy_that_cannot_be_built_refuses_every_call(served, caplog):
    async with served(policy("custom", function="nowhere:at_all")) as plane:
        assert problem(await ask(plane, "GET", "/echo"))[:2] == (500, "internal")
        assert plane.outcomes == [("policy-unusable", "internal")]
        assert not plane.behind.requests
    assert "nowhere" in caplog.text


def test_the_policies_of_so_many_routes_are_kept_and_the_oldest_dropped(monkeypatch):
    monkeypatch.setattr(route_policies, "ROUTES_MAX", 3)
    cache = route_policies.RoutePoliciesCache(None)
    routes = [Route(str(number), "/r", ("GET",), "http", {}, (Policy("api-key"),)) for number in range(5)]
    built = [cache.of(route) for route in routes]
    assert all(cache.of(route) is policies for route, policies in zip(routes[2:], built[2:], strict=True))
    assert cache.of(routes[0]) is not built[0]
    assert len(cache._cached) == 3
