"""Policies in ``mode: shadow`` on HTTP routes."""

import pytest

from gateway.policies.tests.policed_route import JSON, PERSON, answers, limited_by, undated
from gateway.tests import hooks_of_tests
from gateway.tests.http_plane import ask, caller_of
from gateway.tests.policed import custom, policy, shadowed

pytestmark = pytest.mark.usefixtures("operators_module")


@pytest.mark.parametrize(
    ("named", "reported"),
    [
        (policy("validate", "shadow", schema=PERSON), [("validate", "invalid-payload")]),
        (policy("request-size-limit", "shadow", max_bytes=3), [("request-size-limit", "too-large")]),
        (policy("ip-restriction", "shadow", deny=["127.0.0.0/8"]), [("ip-restriction", "ip-not-allowed")]),
        (policy("set-headers", "shadow", headers={"x-a": "new"}), []),
        (policy("set-headers", "shadow", headers={"content-type": "new"}, on="response"), []),
        (policy("remove-headers", "shadow", headers=["x-a"]), []),
        (policy("cors", "shadow", allowed_origins=["*"]), []),
        (policy("transform", "shadow", inbound={"set": {"/a": 2}}, outbound={"set": {"/a": 2}}), []),
        (custom("changing", "shadow", body=True), []),
        (custom("answering", "shadow"), [("custom", "answered")]),
        (custom("refusing", "shadow"), [("custom", "forbidden")]),
        (custom("raising", "shadow"), [("custom", "function-raised")]),
        (custom("replacing_answers", "shadow", on="outbound", body=True), []),
        (limited_by("limit_as_set", "shadow"), [("rate-limit", "function-nonsense")]),
        (policy("validate", "shadow", outbound_schema=PERSON), [("validate", "answer-invalid")]),
        (policy("custom", "shadow", function="nowhere:at_all"), [("custom", "policy-unusable")]),
    ],
    ids=lambda value: f"{value['type']}-{sorted(value['options'])}" if isinstance(value, dict) else "",
)  # fmt: skip
async def test_a_shadow_changes_nothing_and_reports_what_it_would_have_refused(served, named, reported):
    hooks_of_tests.LIMIT["result"] = 5
    answer = answers('{"a": 1}')
    lines = (JSON, "x-a: 1", "x-secret: 2", "origin: https://a.example")
    async with served(answer=answer) as plane:
        plain = await ask(plane, "POST", "/echo", *lines, body=b'{"a": 1}')
        unshadowed = plane.behind.requests[0]
    async with served(named, answer=answer) as plane:
        got = await ask(plane, "POST", "/echo", *lines, body=b'{"a": 1}')
        assert (got.status, got.body) == (plain.status, plain.body)
        assert undated(got) == undated(plain)
        (request,) = plane.behind.requests
        assert request.body == unshadowed.body
        assert [request.header(name) for name in ("x-a", "x-secret", "authorization")] == [["1"], ["2"], []]
        assert shadowed(plane) == reported


async def test_what_a_shadow_would_have_refused_is_logged_once(served, caplog):
    caplog.set_level("INFO", "gateway.policies.shadow")
    async with served(policy("ip-restriction", "shadow", deny=["127.0.0.1"])) as plane, caller_of(plane) as caller:
        for _ in range(3):
            assert (await caller.ask("GET", "/echo")).status == 200
    logged = [record.getMessage() for record in caplog.records if record.name == "gateway.policies.shadow"]
    assert logged == ["shadow: on route echo, ip-restriction would have refused: ip-not-allowed"]


async def test_a_shadow_limit_reports_what_it_would_have_refused(served):
    named = policy("rate-limit", "shadow", rateLimitBy="user", requestsAllowed=1, timeWindowMinutes=1)
    async with served(named) as plane, caller_of(plane) as caller:
        assert [(await caller.ask("GET", "/echo")).status for _ in range(3)] == [200] * 3
        assert shadowed(plane) == [("rate-limit", "rate-limited")] * 2
