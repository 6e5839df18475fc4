"""What policies do to calls of HTTP routes: bodies, answers, headers, functions, and what they refuse."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from gateway.tests import hooks_of_tests
from gateway.tests.http_plane import ask, caller_of, echo, route, running, say, upstream_that
from gateway.tests.policed import HOOKS, custom, policy, shadowed

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "name": {"type": "string"}},
    "required": ["name"],
}


pytestmark = pytest.mark.usefixtures("operators_module")


@pytest.fixture(params=[True, False], ids=["direct", "asgi"])
def is_direct(request):
    return request.param


@pytest.fixture
def served(tmp_path, is_direct):
    """Serve one route with these policies before an upstream that answers so."""

    @asynccontextmanager
    async def serve(*policies, answer=echo, **more):
        route_ = {name: more.pop(name) for name in ("methods", "protocol") if name in more}
        async with upstream_that(answer) as upstream:
            routes = [route("echo", "/echo", f"{upstream.url}/echo", policies=list(policies), **route_)]
            async with running(tmp_path, routes, is_direct=is_direct, **more) as plane:
                plane.behind = upstream
                yield plane

    return serve


def problem(answer):
    said = json.loads(answer.body)
    return answer.status, said["reason"], said


def undated(answer):
    return [header for header in answer.headers if header[0] != "date"]


def body_seen(plane):
    return plane.behind.asked[-1].body


def answers(body, *lines, status="200 OK", type_="application/json"):
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {type_}", f"content-length: {len(body)}", *lines])
    return say(f"{head}\r\n\r\n{body}")


JSON = "content-type: application/json"


# validate


async def test_a_valid_body_passes_untouched(served):
    async with served(policy("validate", schema=PERSON)) as plane:
        body = b'{ "name" : "ann",\n"age":3.0e0 }'
        assert (await ask(plane, "POST", "/echo", JSON, body=b'{"name":"a"}')).status == 200
        answer = await ask(plane, "POST", "/echo", JSON, body=body.replace(b"3.0e0", b"3"))
        assert (answer.status, body_seen(plane)) == (200, body.replace(b"3.0e0", b"3"))


async def test_an_invalid_body_is_refused_with_its_faults(served):
    async with served(policy("validate", schema=PERSON)) as plane:
        status, reason, said = problem(await ask(plane, "POST", "/echo", JSON, body=b'{"age":"x"}'))
        assert (status, reason) == (422, "invalid-payload")
        assert sorted(error["pointer"] for error in said["errors"]) == ["", "/age"]
        assert all(error["detail"] for error in said["errors"])
        assert not plane.behind.asked


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ([JSON], b"{", 400), ([JSON], b"", 400), ([JSON], b'{"name":"a","name":"b"}', 400), ([JSON], b"NaN", 400),
        ([JSON], b"[" * 65 + b"]" * 65, 400), ([JSON], b"\xff", 400),
        (["content-type: text/plain"], b'{"name":"a"}', 415),
        (["content-type: application/x-www-form-urlencoded"], b"a=b", 415),
        ([JSON, "content-encoding: gzip"], b"\x1f\x8b", 415),
        (["content-type: application/merge-patch+json; charset=utf-8"], b'{"name":"a"}', 200),
        ([], b'{"name":"a"}', 200),
    ],
)  # fmt: skip
async def test_what_is_no_json_is_told_so(served, lines, body, status):
    async with served(policy("validate", schema=PERSON)) as plane:
        assert (await ask(plane, "POST", "/echo", *lines, body=body)).status == status
        assert len(plane.behind.asked) == (status == 200)


async def test_a_call_without_a_body_has_nothing_to_validate(served):
    async with served(policy("validate", schema=PERSON)) as plane:
        assert (await ask(plane, "GET", "/echo")).status == 200
        assert (await ask(plane, "DELETE", "/echo")).status == 200
        assert (await ask(plane, "POST", "/echo")).status == 400


async def test_a_chunked_body_is_read_whole_and_within_the_limit(served):
    async with served(policy("validate", schema=PERSON), body_max_bytes=1000) as plane, caller_of(plane) as caller:
        caller.send(caller.head("POST", "/echo", JSON, "transfer-encoding: chunked"))
        caller.send(b'5\r\n{"nam\r\n8\r\ne":"ann"\r\n1\r\n}\r\n0\r\n\r\n')
        assert (await caller.answer()).status == 200
        assert body_seen(plane) == b'{"name":"ann"}'
        caller.send(caller.head("POST", "/echo", JSON, "transfer-encoding: chunked"))
        caller.send(b"3e9\r\n" + b" " * 1001 + b"\r\n")
        assert (await caller.answer()).status == 413


async def test_a_connection_serves_on_after_a_body_that_was_refused(served):
    async with served(policy("validate", schema=PERSON)) as plane, caller_of(plane) as caller:
        assert (await caller.ask("POST", "/echo", JSON, body=b"{}")).status == 422
        assert (await caller.ask("POST", "/echo", JSON, body=b'{"name":"a"}')).status == 200
        assert (await caller.ask("GET", "/echo")).status == 200


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (answers('{"name":"a"}'), 200),
        (answers('{"name":5}'), 502),
        (answers("{"), 502),
        (answers("x", "content-encoding: gzip"), 502),
        (answers("plain", type_="text/plain"), 200),
        (answers('{"error":1}', status="404 Not Found"), 404),
    ],
)
async def test_an_answer_must_be_what_the_route_promises(served, answer, status):
    async with served(policy("validate", outbound_schema=PERSON), answer=answer) as plane:
        got = await ask(plane, "GET", "/echo", "accept-encoding: gzip", "range: bytes=0-1")
        assert got.status == status
        if status == 502:
            assert problem(got)[1] == "upstream-unavailable"
            assert plane.outcomes[0][0] == "answer-invalid"
        assert plane.behind.asked[0].header("accept-encoding") == ["identity"]
        assert plane.behind.asked[0].header("range") == []


async def test_an_answer_too_large_to_be_looked_at_is_refused_whole(served):
    answer = answers('{"name":"' + "a" * 5000 + '"}')
    async with served(policy("validate", outbound_schema=PERSON), answer=answer, body_max_bytes=1000) as plane:
        assert problem(await ask(plane, "GET", "/echo"))[:2] == (502, "upstream-unavailable")
    async with served(
        policy("validate", "shadow", outbound_schema=PERSON), answer=answer, body_max_bytes=1000
    ) as plane:
        assert len((await ask(plane, "GET", "/echo")).body) == 5011


async def test_heads_have_no_body_to_validate(served):
    answer = say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n")
    async with served(policy("validate", outbound_schema=PERSON), answer=answer) as plane, caller_of(plane) as caller:
        assert (await caller.ask("HEAD", "/echo")).status == 200


# transform


async def test_bodies_are_transformed_both_ways_with_lengths_that_fit(served):
    steps = {"rename": {"/old": "/new"}, "remove": ["/secret", "/items/*/id"], "set": {"/a/b": 1, "/items/-": "z"}}
    async with served(
        policy("transform", inbound=steps, outbound={"remove": ["/internal"]}),
        answer=answers('{"internal":1,"a":"\\u00e9"}'),
    ) as plane:
        sent = {"old": "x", "secret": 1, "items": [{"id": 1, "n": 2}], "k": 12345678901234567890123}
        answer = await ask(plane, "POST", "/echo", JSON, body=json.dumps(sent).encode())
        seen = {"new": "x", "items": [{"n": 2}, "z"], "a": {"b": 1}, "k": 12345678901234567890123}
        assert json.loads(body_seen(plane)) == seen
        assert plane.behind.asked[0].header("content-length") == [str(len(body_seen(plane)))]
        assert answer.body == '{"a":"é"}'.encode()
        assert answer.header("content-length") == str(len(answer.body))


async def test_what_is_no_json_passes_a_transformation_or_is_refused(served):
    async with served(
        policy("transform", inbound={"remove": ["/a"]}), answer=answers("x", type_="text/plain")
    ) as plane:
        assert (await ask(plane, "POST", "/echo", "content-type: text/plain", body=b'{"a":1}')).body == b"x"
        assert body_seen(plane) == b'{"a":1}'
        assert problem(await ask(plane, "POST", "/echo", JSON, body=b"{"))[0] == 400
        assert (await ask(plane, "POST", "/echo", JSON)).status == 200
    strict = policy("transform", inbound={"remove": ["/a"]}, outbound={"remove": ["/a"]}, on_other="refuse")
    async with served(strict, answer=answers("x", type_="text/plain")) as plane:
        assert (await ask(plane, "POST", "/echo", "content-type: text/plain", body=b'{"a":1}')).status == 415
        assert (await ask(plane, "GET", "/echo")).status == 502


async def test_headers_that_speak_of_the_bytes_go_where_these_have_changed(served):
    answer = answers('{"a":1}', 'etag: "x"', "digest: y", "last-modified: z")
    async with served(policy("transform", outbound={"remove": ["/a"]}), answer=answer) as plane:
        got = await ask(plane, "GET", "/echo")
        assert (got.body, got.header("etag"), got.header("digest"), got.header("last-modified")) == (
            b"{}",
            None,
            None,
            "z",
        )


# headers


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
async def test_pages_of_other_origins_can_read_refusals_and_when_to_come_back(served, limited):
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


# custom


async def test_a_function_sees_the_call_but_not_its_credential(served):
    async with served(custom("seen", options={"a": 1})) as plane:
        assert (await ask(plane, "GET", "/echo?q=1", "x-a: 1", "x-a: 2")).status == 200
    ((call, request, options),) = hooks_of_tests.CALLS
    assert (call.principal.consumer, call.principal.tier, call.route, call.method) == ("acme", "free", "echo", "GET")
    assert (call.path, call.query, call.protocol, call.ip, options) == ("/echo", "q=1", "http", "127.0.0.1", {"a": 1})
    assert (request.headers["X-A"], request.headers.all("x-a"), request.body) == ("1", ["1", "2"], None)
    assert "x-api-key" not in request.headers
    assert "x-api-key" not in call.headers


async def test_a_function_changes_headers_and_body(served):
    async with served(custom("changed", body=True, options={"extra": True})) as plane:
        answer = await ask(plane, "POST", "/echo", JSON, "x-secret: 1", "x-keep: 2", body=b'{"a":1}')
        assert answer.status == 200
        (asked,) = plane.behind.asked
        assert json.loads(asked.body) == {"a": 1, "by": "acme", "extra": True}
        assert asked.header("x-region") == ["eu"]
        assert asked.header("authorization") == ["Bearer of-the-upstream"]
        assert (asked.header("x-secret"), asked.header("x-keep")) == ([], ["2"])


async def test_without_the_option_a_body_streams_by(served):
    async with served(custom("changed")) as plane:
        await ask(plane, "POST", "/echo", "x-secret: 1", body=b"anything")
        assert body_seen(plane) == b"anything"


async def test_a_function_answers_by_itself(served):
    async with served(policy("cors", allowed_origins=["*"]), custom("answering")) as plane:
        answer = await ask(plane, "GET", "/echo", "origin: https://a.example")
        assert (answer.status, json.loads(answer.body)) == (402, {"pay": "free"})
        assert (answer.header("x-why"), answer.header("content-type")) == ("because", "application/json")
        assert answer.header("access-control-allow-origin") == "https://a.example"
        assert not plane.behind.asked


@pytest.mark.parametrize(
    ("function", "status", "reason"), [("refusing", 403, "forbidden"), ("refusing_plainly", 429, "rate-limited")]
)
async def test_a_function_refuses(served, function, status, reason):
    async with served(custom(function)) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert problem(answer)[:2] == (status, reason)
        assert answer.header("retry-after") == ("7" if status == 429 else None)
        assert plane.outcomes[0][0] == reason


async def test_a_function_changes_answers(served):
    async with served(custom("answer_changed", on="outbound", body=True), answer=answers('{"a":1}')) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert (json.loads(answer.body), answer.header("x-seen")) == ({"wrapped": {"a": 1}}, "200")
    async with served(custom("answer_changed", on="outbound"), answer=answers('{"a":1}')) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert (answer.body, answer.header("x-seen")) == (b'{"a":1}', "200")
    async with served(custom("answer_of_its_own", on="outbound", body=True), answer=answers('{"a":1}')) as plane:
        answer = await ask(plane, "GET", "/echo")
        assert (answer.status, answer.body, answer.header("retry-after")) == (503, b"closed", "5")


async def test_policies_apply_in_the_order_that_the_route_names(served):
    first = policy("transform", inbound={"set": {"/name": "ann"}})
    second = policy("validate", schema=PERSON)
    async with served(first, second) as plane:
        assert (await ask(plane, "POST", "/echo", JSON, body=b"{}")).status == 200
    async with served(second, first) as plane:
        assert (await ask(plane, "POST", "/echo", JSON, body=b"{}")).status == 422


# functions that fail


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("raising", "function-raised"), ("raising_later", "function-raised"), ("exiting", "function-raised"),
        ("exiting_plainly", "function-raised"), ("spinning", "function-timeout"), ("hanging", "function-timeout"),
        ("cancelled_in_vain", "function-timeout"), ("nonsense", "function-nonsense"),
    ],
)  # fmt: skip
async def test_a_function_that_fails_refuses_its_calls_alone(served, caplog, function, cause):
    async with served(custom(function), hook_timeout_s=0.1) as plane, caller_of(plane) as caller:
        for _ in range(3):
            answer = await caller.ask("GET", "/echo")
            assert problem(answer)[:2] == (500, "internal")
            assert b"secret" not in answer.body
        assert [outcome for outcome, _ in plane.outcomes] == [cause] * 3
    told = [record for record in caplog.records if record.name == "gateway.hooks.functions"]
    assert len(told) == 1
    assert f"{HOOKS}:{function}" in told[0].getMessage()


async def test_a_function_whose_threads_all_hang_is_refused_at_once_and_recovers(served):
    hooks_of_tests.SLEEPS["s"] = 0.0
    async with (
        served(custom("sleeping_as_told"), hook_timeout_s=0.1, hook_threads=2) as plane,
        caller_of(plane) as caller,
    ):
        assert (await caller.ask("GET", "/echo")).status == 200
        hooks_of_tests.SLEEPS["s"] = 60.0
        for _ in range(8):
            assert (await caller.ask("GET", "/echo")).status == 500
        hooks_of_tests.SLEEPS["s"] = 0.0
        causes = [outcome for outcome, _ in plane.outcomes]
        assert causes[1:3] == ["function-timeout"] * 2
        assert causes[3:] == ["function-resting"] * 6
        statuses = []
        while 200 not in statuses:
            statuses.append((await caller.ask("GET", "/echo")).status)
            await asyncio.sleep(0.05)


# rate-limit by function


GOOD = {"key": "a", "amount": 1, "per": 1}


def limited_by(function, mode="enforce", **more):
    return policy("rate-limit", mode, rateLimitBy="function", function=f"{HOOKS}:{function}", **more)


async def test_a_function_says_what_limit_a_call_is_under(served):
    async with served(limited_by("limit_by_metadata")) as plane, caller_of(plane) as caller:
        statuses = [(await caller.ask("GET", "/echo")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert problem(await caller.ask("GET", "/echo"))[2]["violated-policies"] == ["route-requests-per-60s"]
        assert (await caller.ask("GET", "/echo", key=plane.other_key)).status == 200
        plane.snapshot.apply([("consumer", "acme", {"name": "acme", "tier": "free", "metadata": {"vip": True}})])
        assert (await caller.ask("GET", "/echo")).status == 200


async def test_a_function_of_limits_may_wait(served):
    async with served(limited_by("limit_later")) as plane, caller_of(plane) as caller:
        assert [(await caller.ask("GET", "/echo")).status for _ in range(2)] == [200, 429]


async def test_a_limit_of_the_route_is_told_beside_those_of_the_tier(served):
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
async def test_a_limit_that_is_none_refuses_as_internal(served, answer):
    hooks_of_tests.NONSENSE["answer"] = answer
    async with served(limited_by("limit_of_nonsense")) as plane:
        assert problem(await ask(plane, "GET", "/echo"))[:2] == (500, "internal")
        assert plane.outcomes[0][0] == "function-nonsense"


async def test_a_limit_of_the_route_is_each_callers_or_all_callers(served):
    user = policy("rate-limit", rateLimitBy="user", requestsAllowed=1, timeWindowMinutes=1)
    async with served(user) as plane, caller_of(plane) as caller:
        assert [(await caller.ask("GET", "/echo")).status for _ in range(2)] == [200, 429]
        assert (await caller.ask("GET", "/echo", key=plane.other_key)).status == 200
    together = policy("rate-limit", rateLimitBy="all", requestsAllowed=1, timeWindowMinutes=1)
    async with served(together) as plane, caller_of(plane) as caller:
        assert (await caller.ask("GET", "/echo")).status == 200
        assert (await caller.ask("GET", "/echo", key=plane.other_key)).status == 429


# shadow


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
        (custom("changed", "shadow", body=True), []),
        (custom("answering", "shadow"), [("custom", "answered")]),
        (custom("refusing", "shadow"), [("custom", "forbidden")]),
        (custom("raising", "shadow"), [("custom", "function-raised")]),
        (custom("answer_of_its_own", "shadow", on="outbound", body=True), []),
        (limited_by("limit_of_nonsense", "shadow"), [("rate-limit", "function-nonsense")]),
        (policy("validate", "shadow", outbound_schema=PERSON), [("validate", "answer-invalid")]),
        (policy("custom", "shadow", function="nowhere:at_all"), [("custom", "policy-unusable")]),
    ],
    ids=lambda value: f"{value['type']}-{sorted(value['options'])}" if isinstance(value, dict) else "",
)  # fmt: skip
async def test_a_shadow_changes_nothing_and_tells_what_it_would_have_done(served, named, reported):
    hooks_of_tests.NONSENSE["answer"] = 5
    answer = answers('{"a": 1}')
    lines = (JSON, "x-a: 1", "x-secret: 2", "origin: https://a.example")
    async with served(answer=answer) as plane:
        plain = await ask(plane, "POST", "/echo", *lines, body=b'{"a": 1}')
        plainly_asked = plane.behind.asked[0]
    async with served(named, answer=answer) as plane:
        got = await ask(plane, "POST", "/echo", *lines, body=b'{"a": 1}')
        assert (got.status, got.body) == (plain.status, plain.body)
        assert undated(got) == undated(plain)
        (asked,) = plane.behind.asked
        assert asked.body == plainly_asked.body
        assert [asked.header(name) for name in ("x-a", "x-secret", "authorization")] == [["1"], ["2"], []]
        assert shadowed(plane) == reported


async def test_what_a_shadow_would_have_refused_is_logged_once_for_many(served, caplog):
    caplog.set_level("INFO", "gateway.policies.shadow")
    async with served(policy("ip-restriction", "shadow", deny=["127.0.0.1"])) as plane, caller_of(plane) as caller:
        for _ in range(3):
            assert (await caller.ask("GET", "/echo")).status == 200
    told = [record.getMessage() for record in caplog.records if record.name == "gateway.policies.shadow"]
    assert told == ["shadow: on route echo, ip-restriction would have refused: ip-not-allowed"]


async def test_a_shadow_limit_notes_what_it_would_have_refused(served):
    named = policy("rate-limit", "shadow", rateLimitBy="user", requestsAllowed=1, timeWindowMinutes=1)
    async with served(named) as plane, caller_of(plane) as caller:
        assert [(await caller.ask("GET", "/echo")).status for _ in range(3)] == [200] * 3
        assert shadowed(plane) == [("rate-limit", "rate-limited")] * 2


async def test_a_policy_that_cannot_be_made_any_more_lets_nobody_through(served, caplog):
    async with served(policy("custom", function="nowhere:at_all")) as plane:
        assert problem(await ask(plane, "GET", "/echo"))[:2] == (500, "internal")
        assert plane.outcomes == [("policy-unusable", "internal")]
        assert not plane.behind.asked
    assert "nowhere" in caplog.text
