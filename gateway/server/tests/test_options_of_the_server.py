"""``OPTIONS *`` (RFC 9110 9.3.7), which asks what the server as a whole is capable of."""

import json

import pytest

from gateway.server.tests.heads import HOST
from gateway.tests.http_plane import caller_of, route, running

OPTIONS = f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n".encode()


async def test_it_is_answered_by_the_gateway_itself_and_the_connection_goes_on(plane, behind):
    async with caller_of(plane) as caller:
        caller.send(OPTIONS * 2)
        for _ in range(2):
            answer = await caller.answer()
            assert (answer.status, answer.header("content-length")) == (200, "0")
            assert answer.header("allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert (await caller.ask("GET", "/echo")).status == 200
    assert len(behind.requests) == 1


async def test_a_body_of_it_is_not_taken_for_a_request(plane):
    async with caller_of(plane) as caller:
        caller.send(f"OPTIONS * HTTP/1.1\r\n{HOST}content-length: 14\r\n\r\nGET / HTTP/1.1".encode())
        assert (await caller.answer()).status == 200
        assert (await caller.ask("GET", "/echo")).status == 200


@pytest.mark.parametrize("line", ["GET * HTTP/1.1", "POST * HTTP/1.1", "OPTIONS ** HTTP/1.1", "OPTIONS *?a HTTP/1.1"])
async def test_no_other_request_has_that_target(plane, line):
    async with caller_of(plane) as caller:
        caller.send(f"{line}\r\n{HOST}\r\n".encode())
        answer = await caller.answer()
        assert (answer.status, json.loads(answer.body)["reason"]) == (400, "invalid-request")


async def test_it_is_charged_to_the_budget_of_its_address(tmp_path, behind):
    async with running(tmp_path, [route("echo", "/echo", behind.url)], refused_per_minute=60) as plane:
        async with caller_of(plane) as caller:
            caller.send(OPTIONS * 12)
            statuses = [(await caller.answer()).status for _ in range(12)]
        assert statuses == [200] * 10 + [429] * 2
