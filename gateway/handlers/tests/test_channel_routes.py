"""Routes to a channel whose address has parameters of the path."""

import asyncio
import json

import pytest

from gateway.handlers.tests.test_channels_on_the_wire import answered, http, served
from gateway.tests.event_plane import WAIT_S, channel, running


def route(name, method, protocol, path, address):
    return {"name": name, "path": path, "methods": [method], "protocol": protocol, "policies": [],
            "handler": {"type": "channel", "channel": address}}  # fmt: skip


ROUTES = [
    route("post", "POST", "http", "/devices/{id}/readings", "devices/{id}/readings"),
    route("read", "GET", "http", "/devices/{id}/readings", "devices/{id}/readings"),
    route("live", "GET", "sse", "/devices/{id}/live", "devices/{id}/readings"),
    route("all", "GET", "http", "/readings", "devices/{id}/readings"),
    route("files", "POST", "http", "/files/{path...}", "files/{path...}"),
    route("one-file", "POST", "http", "/file/{path...}", "devices/{path}/readings"),
]


@pytest.fixture
async def plane(nats_server, tmp_path):
    channels = [channel("devices/{id}/readings"), channel("files/{path...}")]
    async with running(nats_server.url, tmp_path, channels, routes=ROUTES) as plane, served(plane) as plane.port:
        plane.change_key(scopes=["call:*"])
        yield plane


async def post(plane, path, number=1):
    return await answered(plane, "POST", path, json.dumps(number).encode(), content_type="application/json")


async def addresses(plane, path):
    status, body = await answered(plane, "GET", path)
    assert status == 200
    return [event["channel"] for event in body["results"]]


@pytest.mark.parametrize(
    ("segment", "value"),
    [("7", "7"), ("a%20b", "a b"), ("a%2520b", "a%20b"), ("%C3%A9;v=1", "é;v=1"), ("x.y*z", "x.y*z"), ("{}", "{}")],
)
async def test_an_event_goes_to_the_address_that_its_path_fills_in(plane, segment, value):
    assert (await post(plane, f"/devices/{segment}/readings"))[0] == 201
    assert await addresses(plane, f"/devices/{segment}/readings") == [f"devices/{value}/readings"]


@pytest.mark.parametrize("segment", ["+", "%23", "{id}", "{other}", "%7Bid...%7D"])
async def test_a_value_that_would_match_more_than_itself_is_refused(plane, segment):
    for method in ("POST", "GET"):
        status, problem = await answered(plane, method, f"/devices/{segment}/readings", b"1")
        assert (status, problem["reason"]) == (400, "invalid-request")
        assert problem["detail"].startswith("The value of {id} is no wildcard")


async def test_the_rest_of_a_path_fills_in_levels_only_where_the_address_has_a_rest(plane):
    assert (await post(plane, "/files/a/b%2Fc"))[0] == 201
    assert (await post(plane, "/file/a"))[0] == 201
    for path in ("/file/a/b", "/file/a%2Fb", "/file/"):
        status, problem = await post(plane, path)
        assert (status, problem["reason"]) == (400, "invalid-request"), path


async def test_an_address_that_is_reserved_is_refused(nats_server, tmp_path):
    routes = [route("any", "POST", "http", "/in/{at}/x", "{at}/x")]
    async with (
        running(nats_server.url, tmp_path, [channel("{at}/x")], routes=routes) as plane,
        served(plane) as plane.port,
    ):
        plane.change_key(scopes=["call:*"])
        status, problem = await post(plane, "/in/$SYS/x")
        assert (status, problem["reason"]) == (400, "invalid-request")
        assert "are reserved" in problem["detail"]


async def test_the_right_to_a_route_reads_one_address_of_its_channel(plane):
    for device in ("7", "8"):
        assert (await post(plane, f"/devices/{device}/readings"))[0] == 201
    assert await addresses(plane, "/devices/7/readings") == ["devices/7/readings"]
    status, problem = await answered(plane, "GET", "/v1/channels/devices/8/readings/events")
    assert (status, problem["reason"]) == (403, "forbidden")


async def test_a_path_without_the_parameter_reads_every_address(plane):
    for device in ("7", "8"):
        await post(plane, f"/devices/{device}/readings")
    assert await addresses(plane, "/readings") == ["devices/7/readings", "devices/8/readings"]


async def test_a_live_stream_has_the_events_of_the_address_that_its_path_fills_in(plane):
    status, _, reader, writer = await http(plane, "GET", "/devices/a%20b/live")
    assert status == 200
    await reader.readuntil(b"retry: 2000")
    for number, device in enumerate(("7", "a%20b")):
        await post(plane, f"/devices/{device}/readings", number)
    async with asyncio.timeout(WAIT_S):
        assert b"data: 0" not in await reader.readuntil(b"data: 1\n")
    writer.close()
