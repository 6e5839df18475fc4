"""``validate`` on HTTP routes: bodies of requests and of answers."""

import pytest

from gateway.policies.tests.policed_route import JSON, PERSON, answers, forwarded_body, problem
from gateway.tests.http_plane import ask, caller_of, say
from gateway.tests.policed import policy

pytestmark = pytest.mark.usefixtures("operators_module")


async def test_a_valid_body_passes_untouched(served):
    async with served(policy("validate", schema=PERSON)) as plane:
        body = b'{ "name" : "ann",\n"age":3.0e0 }'
        assert (await ask(plane, "POST", "/echo", JSON, body=b'{"name":"a"}')).status == 200
        answer = await ask(plane, "POST", "/echo", JSON, body=body.replace(b"3.0e0", b"3"))
        assert (answer.status, forwarded_body(plane)) == (200, body.replace(b"3.0e0", b"3"))


async def test_an_invalid_body_is_refused_with_its_faults(served):
    async with served(policy("validate", schema=PERSON)) as plane:
        status, reason, reply = problem(await ask(plane, "POST", "/echo", JSON, body=b'{"age":"x"}'))
        assert (status, reason) == (422, "invalid-payload")
        assert sorted(error["pointer"] for error in reply["errors"]) == ["", "/age"]
        assert all(error["detail"] for error in reply["errors"])
        assert not plane.behind.requests


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
async def test_a_body_that_is_not_json_is_refused(served, lines, body, status):
    async with served(policy("validate", schema=PERSON)) as plane:
        assert (await ask(plane, "POST", "/echo", *lines, body=body)).status == status
        assert len(plane.behind.requests) == (status == 200)


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
        assert forwarded_body(plane) == b'{"name":"ann"}'
        caller.send(caller.head("POST", "/echo", JSON, "transfer-encoding: chunked"))
        caller.send(b"3e9\r\n" + b" " * 1001 + b"\r\n")
        assert (await caller.answer()).status == 413


async def test_a_connection_stays_usable_after_a_refused_body(served):
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
async def test_an_answer_must_satisfy_the_schema_of_the_route(served, answer, status):
    async with served(policy("validate", outbound_schema=PERSON), answer=answer) as plane:
        got = await ask(plane, "GET", "/echo", "accept-encoding: gzip", "range: bytes=0-1")
        assert got.status == status
        if status == 502:
            assert problem(got)[1] == "upstream-unavailable"
            assert plane.outcomes[0][0] == "answer-invalid"
        assert plane.behind.requests[0].header("accept-encoding") == ["identity"]
        assert plane.behind.requests[0].header("range") == []


async def test_an_answer_too_large_to_be_held_is_refused(served):
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
