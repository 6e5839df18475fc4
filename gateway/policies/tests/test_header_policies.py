"""``set-headers``, ``remove-headers`` and ``cors`` on answers and refusals."""

import pytest

from gateway.policies.tests.policed_route import JSON, PERSON, answers
from gateway.tests.http_plane import ask
from gateway.tests.policed import policy

pytestmark = pytest.mark.usefixtures("operators_module")


async def test_headers_of_answers_are_set_and_removed_on_refusals_too(served):
    policies = [
        policy("set-headers", headers={"X-Frame-Options": "DENY"}, on="response"),
        policy("remove-headers", headers=["Server-Timing"], on="response"),
        policy("validate", schema=PERSON),
    ]
    async with served(*policies, answer=answers("{}", "server-timing: a", "x-frame-options: no")) as plane:
        got = await ask(plane, "GET", "/echo")
        assert (got.header("x-frame-options"), got.header("server-timing")) == ("DENY", None)
        assert (await ask(plane, "POST", "/echo", JSON, body=b"{}")).header("x-frame-options") == "DENY"


@pytest.mark.parametrize("limited", [False, True])
async def test_pages_of_other_origins_can_read_refusals_and_retry_after(served, limited):
    origin = "origin: https://app.example"
    limits = [{"metric": "requests", "amount": 1, "per": 60}] if limited else []
    policies = [policy("cors", allowed_origins=["https://app.example"]), policy("validate", schema=PERSON)]
    async with served(*policies, limits=limits) as plane:
        first = await ask(plane, "POST", "/echo", JSON, origin, body=b"{}")
        second = await ask(plane, "GET", "/echo", origin)
        unknown = await ask(plane, "GET", "/echo", origin, key=None)
        assert [first.status, second.status, unknown.status] == [422, 429 if limited else 200, 401]
        for answer in (first, second, unknown):
            assert answer.header("access-control-allow-origin") == "https://app.example"
            assert answer.header("access-control-expose-headers") == "*"
        foreign = await ask(plane, "GET", "/echo", "origin: https://evil.example")
        assert foreign.header("access-control-allow-origin") is None
        preflight = await ask(plane, "OPTIONS", "/echo", origin, "access-control-request-method: POST", key=None)
        assert (preflight.status, preflight.header("access-control-allow-origin")) == (204, "https://app.example")
