"""How long a route waits for its upstream, and how a caller is told (BerriAI/litellm#9551)."""

import asyncio
import json
import socket

import pytest

from gateway.handlers.proxy.forwarding import AI_TIMEOUT_S, forwarding_of
from gateway.handlers.proxy.tests.websocket.support import HANDSHAKE
from gateway.protocol import Protocol
from gateway.protocols.http import accepted, prepare
from gateway.tests.http_plane import ask, caller_of, route, running, upstream_that

TIMEOUTS = {"first_byte_s": 0.2, "idle_s": 0.3}


async def never(requested, reader, writer):
    await asyncio.Event().wait()


async def begin(requested, reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
    await asyncio.Event().wait()


async def test_a_route_waits_as_long_as_it_says_and_the_refusal_names_the_timeout(tmp_path):
    async with upstream_that(never) as behind:
        routes = [
            route("a", "/a", behind.url, timeouts=TIMEOUTS),
            route("socket", "/socket", behind.url.replace("http", "ws"), protocol="websocket", timeouts=TIMEOUTS),
        ]
        async with running(tmp_path, routes) as plane:
            answers = [await ask(plane, "GET", "/a"), await ask(plane, "POST", "/a", body=b"x")]
            async with caller_of(plane) as caller:
                caller.send(caller.head("GET", "/socket", *HANDSHAKE))
                answers.append(await caller.answer())
    for answer in answers:
        problem = json.loads(answer.body)
        assert (answer.status, problem["reason"]) == (504, "upstream-timeout")
        assert problem["detail"] == "The upstream sent no response within 0.2 s (first_byte_s)."


async def test_a_response_that_pauses_too_long_is_aborted(tmp_path):
    async with upstream_that(begin) as behind:
        async with running(tmp_path, [route("a", "/a", behind.url, timeouts=TIMEOUTS)]) as plane:
            with pytest.raises(asyncio.IncompleteReadError):
                await ask(plane, "GET", "/a")
            assert plane.outcomes[-1][0] == "upstream-timeout"


async def test_a_connection_that_is_not_accepted_in_time_is_refused_with_its_timeout(tmp_path):
    # A listener whose backlog is full accepts no other connection.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with running(tmp_path, [route("a", "/a", url, timeouts={"connect_s": 0.2})]) as plane:
            answer = await ask(plane, "GET", "/a")
    assert answer.status == 504
    assert json.loads(answer.body)["detail"] == "The upstream accepted no connection within 0.2 s (connect_s)."


@pytest.mark.parametrize(
    ("method", "path", "timeouts", "first_byte_s"),
    [
        ("POST", "/ai/chat/completions", {}, AI_TIMEOUT_S),
        ("POST", "/ai/messages", {}, AI_TIMEOUT_S),
        ("POST", "/ai/models/gemini:streamGenerateContent", {}, AI_TIMEOUT_S),
        ("POST", "/ask", {}, AI_TIMEOUT_S),
        ("POST", "/ollama/api/chat", {}, AI_TIMEOUT_S),
        ("POST", "/ai/chat/completions", {"first_byte_s": 7}, 7),
        ("POST", "/ai/files", {}, None),
        ("GET", "/ai/chat/completions", {}, None),
    ],
)
async def test_a_model_may_take_longer_unless_the_route_says_how_long(tmp_path, method, path, timeouts, first_byte_s):
    routes = [
        route("ai", "/ai/{rest...}", "http://127.0.0.1:9/v1/{rest}", timeouts=timeouts),
        route("ollama", "/ollama/{rest...}", "http://127.0.0.1:9/{rest}?a=1"),
        route("ask", "/ask", "http://127.0.0.1:9/v1/chat/completions"),
    ]
    async with running(tmp_path, routes) as plane:
        call = accepted(plane, Protocol.HTTP, method, path.encode(), b"", [], "127.0.0.1")
        prepare(plane, call)
        assert forwarding_of(call.route).timeouts_for(call, plane.config).first_byte_s == first_byte_s
