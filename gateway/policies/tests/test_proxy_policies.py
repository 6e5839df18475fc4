"""Policies on the messages of proxied WebSockets and streams, and routes that change while these are open."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import InvalidStatus

from gateway.handlers.proxy.tests.websocket.support import closed, echo_messages, socket_of, sockets_that
from gateway.policies import live
from gateway.tests.http_plane import WAIT_S, caller_of, eventually, route, running, upstream_that
from gateway.tests.policed import HOOKS, custom, policy, shadowed

pytestmark = pytest.mark.usefixtures("operators_module")
NAMED = {"type": "object", "required": ["name"]}


def socket_route(port, *policies, name="socket", **more):
    return route(
        name,
        "/socket",
        f"ws://127.0.0.1:{port}/x",
        methods=["GET"],
        protocol="websocket",
        policies=list(policies),
        **more,
    )


@asynccontextmanager
async def proxied(tmp_path, *policies, handler=echo_messages, **more):
    async with (
        sockets_that(handler) as behind,
        running(tmp_path, [socket_route(behind.port, *policies)], **more) as plane,
    ):
        plane.behind = behind
        plane.change = lambda *new, **fields: plane.snapshot.apply(
            [("route", "socket", socket_route(behind.port, *new, **fields))]
        )
        yield plane


async def heard(socket):
    return await asyncio.wait_for(socket.recv(), WAIT_S)


async def echoed(socket, message):
    await socket.send(message)
    return await heard(socket)


async def test_valid_messages_pass_and_an_invalid_one_closes_the_socket(tmp_path):
    async with proxied(tmp_path, policy("validate", schema=NAMED)) as plane, socket_of(plane) as socket:
        assert await echoed(socket, '{"name": "a"}') == '{"name": "a"}'
        await socket.send('{"age": 1}')
        code, reason = await closed(socket)
        assert (code, json.loads(reason)) == (1008, {"reason": "invalid-payload"})
    await eventually(lambda: plane.outcomes == [("invalid-payload", "protocol_error")])


@pytest.mark.parametrize("message", ["{", b'{"name":"a"}', "[" * 100, '{"name":1,"name":2}'])
async def test_a_message_that_is_not_json_text_closes_the_socket(tmp_path, message):
    async with proxied(tmp_path, policy("validate", schema=NAMED)) as plane, socket_of(plane) as socket:
        await socket.send(message)
        assert (await closed(socket))[0] == 1008


async def test_an_invalid_message_of_the_upstream_is_not_passed_on(tmp_path):
    async with proxied(tmp_path, policy("validate", outbound_schema=NAMED)) as plane, socket_of(plane) as socket:
        assert await echoed(socket, '{"name":1}') == '{"name":1}'
        await socket.send("{}")
        assert (await closed(socket))[0] == 1014


async def test_messages_are_transformed_in_both_directions(tmp_path):
    steps = policy("transform", inbound={"set": {"/in": 1}}, outbound={"remove": ["/secret"], "set": {"/out": 2}})
    async with proxied(tmp_path, steps) as plane, socket_of(plane) as socket:
        assert json.loads(await echoed(socket, '{"secret":1,"a":"\u00e9"}')) == {"a": "\u00e9", "in": 1, "out": 2}
        assert await echoed(socket, "plain") == "plain"
        assert await echoed(socket, b"\x00\xff") == b"\x00\xff"


async def test_a_hook_changes_drops_and_refuses_messages(tmp_path):
    async with proxied(tmp_path, custom("on_message", on="message")) as plane, socket_of(plane) as socket:
        assert json.loads(await echoed(socket, '{"a":1}')) == {"a": 1, "in": "socket", "out": "socket"}
        await socket.send('{"drop": true}')
        assert await echoed(socket, "next") == "next"
        await socket.send('{"refuse": true}')
        assert (await closed(socket))[0] == 1008


@pytest.mark.parametrize("function", ["raising", "raising_later", "returning_a_number", "hanging", "spinning"])
async def test_a_hook_that_fails_closes_only_its_own_socket(tmp_path, function):
    async with sockets_that(echo_messages) as behind:
        routes = [
            socket_route(behind.port, custom(function, on="message")),
            route("other", "/other", f"ws://127.0.0.1:{behind.port}/x", protocol="websocket", policies=[]),
        ]
        async with running(tmp_path, routes, hook_timeout_s=0.1) as plane, socket_of(plane, "/other") as other:
            async with socket_of(plane) as socket:
                await socket.send("x")
                assert (await closed(socket))[0] == 1011
            assert await echoed(other, "still here") == "still here"


async def test_a_message_larger_than_the_limit_of_the_route_closes_the_socket(tmp_path):
    async with proxied(tmp_path, policy("request-size-limit", max_bytes=4)) as plane, socket_of(plane) as socket:
        assert await echoed(socket, "abcd") == "abcd"
        await socket.send("\u00e9\u00e9\u00e9")
        assert (await closed(socket))[0] == 1009


@pytest.mark.parametrize(
    ("named", "status"),
    [
        (custom("refusing"), 403), (custom("answering"), 402), (custom("raising"), 500),
        (policy("ip-restriction", deny=["127.0.0.1"]), 403),
        (policy("rate-limit", rateLimitBy="function", function=f"{HOOKS}:raising"), 500),
    ],
)  # fmt: skip
async def test_a_handshake_is_refused_before_the_upstream_is_called(tmp_path, named, status):
    async with proxied(tmp_path, named) as plane:
        with pytest.raises(InvalidStatus) as refused:
            async with socket_of(plane):
                pass
        assert refused.value.response.status_code == status
        assert not plane.behind.requests


async def test_a_limit_returned_by_a_hook_counts_handshakes_or_messages(tmp_path):
    limited = policy("rate-limit", rateLimitBy="function", function=f"{HOOKS}:limit_by_metadata")
    async with proxied(tmp_path, limited) as plane:
        for _ in range(2):
            async with socket_of(plane) as socket:
                for _ in range(5):
                    assert await echoed(socket, "x") == "x"
        with pytest.raises(InvalidStatus) as refused:
            async with socket_of(plane):
                pass
        assert refused.value.response.status_code == 429
    by_message = policy(
        "rate-limit", rateLimitBy="function", function=f"{HOOKS}:limit_by_metadata", metric="messages_in"
    )
    async with proxied(tmp_path, by_message) as plane, socket_of(plane) as socket, socket_of(plane) as second:
        assert [await echoed(socket, "x"), await echoed(second, "x")] == ["x", "x"]
        error = json.loads(await echoed(socket, "x"))
        assert (error["type"], error["reason"]) == ("error", "rate-limited")
        assert error["retry_after_s"] > 0
        await socket.send("x" * 10)
        assert json.loads(await heard(socket))["reason"] == "rate-limited"
        assert [connection.throttled for connection in plane.connections] == [2, 0]


async def test_shadow_policies_change_and_refuse_no_message(tmp_path):
    policies = [
        policy("validate", "shadow", schema=NAMED, outbound_schema=NAMED),
        policy("transform", "shadow", inbound={"set": {"/x": 1}}, outbound={"set": {"/x": 1}}),
        policy("request-size-limit", "shadow", max_bytes=3),
        custom("on_message", "shadow", on="message"),
    ]
    async with proxied(tmp_path, *policies) as plane, socket_of(plane) as socket:
        assert await echoed(socket, '{"drop": true}') == '{"drop": true}'
        assert sorted(shadowed(plane)) == [
            ("custom", "dropped"), ("custom", "dropped"), ("request-size-limit", "too-large"),
            ("validate", "answer-invalid"), ("validate", "invalid-payload"),
        ]  # fmt: skip


async def test_changed_policies_apply_to_the_next_message_of_an_open_socket(tmp_path):
    async with proxied(tmp_path) as plane, socket_of(plane) as socket, socket_of(plane) as strict:
        assert await echoed(socket, "anything") == "anything"
        plane.change(policy("transform", outbound={"set": {"/b": 2}}))
        assert json.loads(await echoed(socket, '{"a":1}')) == {"a": 1, "b": 2}
        plane.change(policy("validate", schema=NAMED))
        assert await echoed(socket, '{"name":1}') == '{"name":1}'
        await strict.send("anything")
        assert (await closed(strict))[0] == 1008
        plane.change()
        assert await echoed(socket, "anything") == "anything"
        assert len(plane.behind.requests) == 2


async def test_a_changed_handler_leaves_open_sockets_where_they_are_under_the_new_policies(tmp_path):
    async with proxied(tmp_path) as plane, socket_of(plane) as socket:
        assert await echoed(socket, "a") == "a"
        plane.change(policy("validate", schema=NAMED), handler={"url": "ws://127.0.0.1:1/away"})
        assert await echoed(socket, '{"name":1}') == '{"name":1}'
        await socket.send("a")
        assert (await closed(socket))[0] == 1008


async def test_sockets_of_an_ip_that_is_no_longer_allowed_are_closed(tmp_path):
    async with proxied(tmp_path) as plane, socket_of(plane) as socket:
        assert await echoed(socket, "a") == "a"
        plane.change(policy("ip-restriction", allow=["127.0.0.0/8"]))
        assert await echoed(socket, "a") == "a"
        plane.change(policy("ip-restriction", "shadow", deny=["127.0.0.1"]))
        assert await echoed(socket, "a") == "a"
        plane.change(policy("ip-restriction", deny=["127.0.0.1"]))
        code, reason = await closed(socket)
        assert (code, json.loads(reason)["reason"]) == (3003, "ip-not-allowed")


async def test_deleting_a_route_closes_its_sockets_unless_it_is_created_again_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "GRACE_S", 0.05)
    async with proxied(tmp_path) as plane, socket_of(plane) as socket:
        assert await echoed(socket, "a") == "a"
        plane.snapshot.apply([("route", "socket", None)])
        plane.change()
        await asyncio.sleep(0.1)
        assert await echoed(socket, "a") == "a"
        plane.snapshot.apply([("route", "socket", None)])
        code, reason = await closed(socket)
        assert (code, json.loads(reason)["reason"]) == (3003, "not-found")


# Streams


@asynccontextmanager
async def streamed(tmp_path, chunks, *policies, **more):
    going = asyncio.Event()

    async def answer(request, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for chunk in chunks:
            if chunk is None:
                await going.wait()
                continue
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        return True

    async with upstream_that(answer) as behind:
        routes = [route("s", "/s", f"{behind.url}/s", methods=["GET"], protocol="sse", policies=list(policies))]
        async with running(tmp_path, routes, **more) as plane:
            plane.behind, plane.going = behind, going
            yield plane


async def events(plane):
    async with caller_of(plane) as caller:
        return (await caller.ask("GET", "/s")).body


async def test_events_of_a_stream_are_transformed_one_by_one(tmp_path):
    chunks = [
        b": hi\n\nid: 1\nda",
        b'ta: {"a":1}\n',
        b'\ndata: plain\n\ndata: {"a":1,\r\ndata: "b":2}\r\n',
        b"\r\nevent: end\n\n",
    ]
    async with streamed(tmp_path, chunks, policy("transform", outbound={"remove": ["/a"]})) as plane:
        assert await events(plane) == b': hi\n\nid: 1\ndata: {}\n\ndata: plain\n\ndata: {"b":2}\n\nevent: end\n\n'
        assert plane.behind.requests[0].header("accept-encoding") == ["identity"]


async def test_an_invalid_event_becomes_an_error_event_and_the_stream_continues(tmp_path):
    chunks = [b'id: 1\ndata: {"name":1}\n\n', b'id: 2\ndata: {"x":"hidden"}\n\n', b'id: 3\ndata: {"name":3}\n\n']
    async with streamed(tmp_path, chunks, policy("validate", outbound_schema=NAMED)) as plane:
        first, second, third, _ = (await events(plane)).split(b"\n\n")
        assert (first, third) == (b'id: 1\ndata: {"name":1}', b'id: 3\ndata: {"name":3}')
        assert second.startswith(b"id: 2\nevent: error\ndata: {")
        assert b"hidden" not in second


async def test_a_stream_whose_event_has_no_end_is_aborted(tmp_path):
    chunks = [b"data: " + b"a" * 600, b"a" * 600, b"a" * 600]
    transform = policy("transform", outbound={"remove": ["/a"]})
    async with (
        streamed(tmp_path, chunks, transform, proxied_message_max_bytes=1000) as plane,
        caller_of(plane) as caller,
    ):
        caller.send(caller.head("GET", "/s"))
        assert b"aaaa" not in await caller.reader.read()


async def test_changed_policies_apply_to_the_next_event_of_an_open_stream(tmp_path):
    chunks = [b'data: {"a":1}\n\n', None, b'data: {"a":1}\n\n']
    async with streamed(tmp_path, chunks, policy("api-key")) as plane, caller_of(plane) as caller:
        caller.send(caller.head("GET", "/s"))
        await caller.answer_head()
        assert b'{"a":1}' in await caller.reader.readuntil(b"\n\n")
        now = route("s", "/s", f"{plane.behind.url}/s", methods=["GET"], protocol="sse")
        plane.snapshot.apply([("route", "s", {**now, "policies": [policy("transform", outbound={"remove": ["/a"]})]})])
        plane.going.set()
        assert b"data: {}" in await caller.reader.readuntil(b"\n\n")
