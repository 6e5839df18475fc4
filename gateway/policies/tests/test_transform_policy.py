"""``transform`` on HTTP routes: bodies, and the headers that describe them."""

import json

import pytest

from gateway.policies.tests.policed_route import JSON, answers, forwarded_body, problem
from gateway.tests.http_plane import ask
from gateway.tests.policed import policy

pytestmark = pytest.mark.usefixtures("operators_module")


async def test_bodies_are_transformed_in_both_directions_with_matching_lengths(served):
    steps = {"rename": {"/old": "/new"}, "remove": ["/secret", "/items/*/id"], "set": {"/a/b": 1, "/items/-": "z"}}
    async with served(
        policy("transform", inbound=steps, outbound={"remove": ["/internal"]}),
        answer=answers('{"internal":1,"a":"\\u00e9"}'),
    ) as plane:
        sent = {"old": "x", "secret": 1, "items": [{"id": 1, "n": 2}], "k": 12345678901234567890123}
        answer = await ask(plane, "POST", "/echo", JSON, body=json.dumps(sent).encode())
        seen = {"new": "x", "items": [{"n": 2}, "z"], "a": {"b": 1}, "k": 12345678901234567890123}
        assert json.loads(forwarded_body(plane)) == seen
        assert plane.behind.requests[0].header("content-length") == [str(len(forwarded_body(plane)))]
        assert answer.body == '{"a":"é"}'.encode()
        assert answer.header("content-length") == str(len(answer.body))


async def test_a_body_that_is_not_json_passes_unchanged_or_is_refused(served):
    async with served(
        policy("transform", inbound={"remove": ["/a"]}), answer=answers("x", type_="text/plain")
    ) as plane:
        assert (await ask(plane, "POST", "/echo", "content-type: text/plain", body=b'{"a":1}')).body == b"x"
        assert forwarded_body(plane) == b'{"a":1}'
        assert problem(await ask(plane, "POST", "/echo", JSON, body=b"{"))[0] == 400
        assert (await ask(plane, "POST", "/echo", JSON)).status == 200
    strict = policy("transform", inbound={"remove": ["/a"]}, outbound={"remove": ["/a"]}, on_other="refuse")
    async with served(strict, answer=answers("x", type_="text/plain")) as plane:
        assert (await ask(plane, "POST", "/echo", "content-type: text/plain", body=b'{"a":1}')).status == 415
        assert (await ask(plane, "GET", "/echo")).status == 502


async def test_headers_that_describe_the_bytes_are_removed_where_these_have_changed(served):
    answer = answers('{"a":1}', 'etag: "x"', "digest: y", "last-modified: z")
    async with served(policy("transform", outbound={"remove": ["/a"]}), answer=answer) as plane:
        got = await ask(plane, "GET", "/echo")
        assert (got.body, got.header("etag"), got.header("digest"), got.header("last-modified")) == (
            b"{}",
            None,
            None,
            "z",
        )
