"""``custom`` on HTTP routes: what a hook sees, changes, answers and refuses, and what happens where it fails."""

import asyncio
import json

import pytest

from gateway.policies.tests.policed_route import JSON, answers, forwarded_body, problem
from gateway.tests import hooks_of_tests
from gateway.tests.http_plane import WAIT_S, ask, caller_of
from gateway.tests.policed import HOOKS, custom, policy

pytestmark = pytest.mark.usefixtures("operators_module")


async def test_a_hook_sees_the_call_but_not_its_credential(served):
    async with served(custom("recording", options={"a": 1})) as plane:
        assert (await ask(plane, "GET", "/echo?q=1", "x-a: 1", "x-a: 2")).status == 200
    ((call, request, options),) = hooks_of_tests.CALLS
    assert (call.principal.consumer, call.principal.tier, call.route, call.method) == ("acme", "free", "echo", "GET")
    assert (call.path, call.query, call.protocol, call.ip, options) == ("/echo", "q=1", "http", "127.0.0.1", {"a": 1})
    assert (request.headers["X-A"], request.headers.all("x-a"), request.body) == ("1", ["1", "2"], None)
    assert "x-api-key" not in request.headers
    assert "x-api-key" not in call.headers


async def test_a_hook_changes_headers_and_body(served):
    async with served(custom("changing", body=True, options={"extra": True})) as plane:
        answer = await ask(plane, "POST", "/echo", JSON, "x-secret: 1", "x-keep: 2", body=b'{"a":1}')
        assert answer.status == 200
        (request,) = plane.behind.requests
        assert json.loads(request.body) == {"a": 1, "by": "acme", "extra": True}
        assert request.header("x-region") == ["eu"]
        assert request.header("authorization") == ["Bearer of-the-upstream"]
        assert (request.header("x-secret"), request.header("x-keep")) == ([], ["2"])


async def test_without_the_option_body_the_body_is_streamed(served):
    async with served(custom("changing")) as plane:
        await ask(plane, "POST", "/echo", "x-secret: 1", body=b"anything")
        assert forwarded_body(plane) == b"anything"


async def test_a_hook_answers_instead_of_the_upstream(served):
    async with served(policy("cors", allowed_origins=["*"]), custom("answering")) as plane:
        answer = await ask(plane, "GET", "/echo", "origin: https://a.example")
        assert (answer.status, json.loads(answer.body)) == (402, {"pay": "free"})
        assert (answer.header("x-why"), answer.header("content-type")) == ("because", "application/json")
        assert answer.header("access-control-allow-origin") == "https://a.example"
        assert not plane.behind.requests


@pytest.mark.parametrize(
    ("function", "status", "reason"), [("refusing", 403, "forbidden"), ("returning_a_refusal", 429, "rate-limited")]
)
async def test_a_hook_refuses(served, function, status, reason):
    async with served(custom(function)) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert problem(answer)[:2] == (status, reason)
        assert answer.header("retry-after") == ("7" if status == 429 else None)
        assert plane.outcomes[0][0] == reason


async def test_a_hook_changes_answers(served):
    async with served(custom("changing_answers", on="outbound", body=True), answer=answers('{"a":1}')) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert (json.loads(answer.body), answer.header("x-seen")) == ({"wrapped": {"a": 1}}, "200")
    async with served(custom("changing_answers", on="outbound"), answer=answers('{"a":1}')) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert (answer.body, answer.header("x-seen")) == (b'{"a":1}', "200")
    async with served(custom("replacing_answers", on="outbound", body=True), answer=answers('{"a":1}')) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert (answer.status, answer.body, answer.header("retry-after")) == (503, b"closed", "5")


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("raising", "function-raised"), ("raising_later", "function-raised"), ("exiting", "function-raised"),
        ("interrupting", "function-raised"), ("spinning", "function-timeout"), ("hanging", "function-timeout"),
        ("ignoring_cancellation", "function-timeout"), ("returning_a_number", "function-nonsense"),
    ],
)  # fmt: skip
async def test_a_hook_that_fails_refuses_its_own_calls_and_is_logged_once(served, caplog, function, cause):
    timeout_s = 0.1 if cause == "function-timeout" else WAIT_S
    async with served(custom(function), hook_timeout_s=timeout_s) as plane, caller_of(plane) as caller:
        for _ in range(3):
            answer = await caller.ask("GET", "/echo")
            assert problem(answer)[:2] == (500, "internal")
            assert b"secret" not in answer.body
        assert [outcome for outcome, _ in plane.outcomes] == [cause] * 3
    logged = [record for record in caplog.records if record.name == "gateway.hooks.functions"]
    assert len(logged) == 1
    assert f"{HOOKS}:{function}" in logged[0].getMessage()


async def test_a_hook_whose_threads_are_all_held_is_refused_at_once_and_recovers(served):
    hooks_of_tests.SLEEP["s"] = 0.0
    async with (
        served(custom("sleeping"), hook_timeout_s=0.1, hook_threads=2) as plane,
        caller_of(plane) as caller,
    ):
        assert (await caller.ask("GET", "/echo")).status == 200
        hooks_of_tests.SLEEP["s"] = 60.0
        for _ in range(8):
            assert (await caller.ask("GET", "/echo")).status == 500
        hooks_of_tests.SLEEP["s"] = 0.0
        causes = [outcome for outcome, _ in plane.outcomes]
        assert causes[1:3] == ["function-timeout"] * 2
        assert causes[3:] == ["function-resting"] * 6
        statuses = []
        while 200 not in statuses:
            statuses.append((await caller.ask("GET", "/echo")).status)
            await asyncio.sleep(0.05)
