import json

import pytest

from gateway.call import Call
from gateway.channels.publication import Publication
from gateway.channels.publication import attributes_as_headers as _headers
from gateway.handlers import channel
from gateway.log.event import from_headers
from gateway.protocol import Protocol
from gateway.tests import event_plane, http_plane
from gateway.tests.http_plane import ask, route, say, upstream_that
from gateway.wire.traceparent import new_traceparent, parse_traceparent, parse_tracestate

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
OK = say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (TRACE, TRACE),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-more", TRACE),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TRACE),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x", None),
        (f"{TRACE}-more", None),
        (TRACE.upper(), None),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", None),
        (f"{TRACE}\n", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_a_traceparent_is_passed_on_or_dropped(given, passed):
    assert parse_traceparent(given) == passed


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (STATE, STATE),
        ("a=1 , ,b=2,", "a=1,b=2"),
        ("fw529a3039@dt=FfffffeB3c", "fw529a3039@dt=FfffffeB3c"),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a", None),
        ("a=", None),
        ("a=b=c", None),
        ("a=\x01", None),
        (",".join(f"k{number}=1" for number in range(33)), None),
        ("a=" + "x" * 511, None),
        ("", None),
        (None, None),
    ],
)
def test_a_tracestate_is_passed_on_or_dropped(given, passed):
    assert parse_tracestate(given) == passed


def test_a_new_traceparent_is_valid_and_unique():
    one, other = new_traceparent(), new_traceparent()
    assert parse_traceparent(one) == one != other


async def forwarded(tmp_path, *lines, **settings):
    """Return the trace headers that the upstream receives."""
    async with upstream_that(OK) as upstream:
        routes = [route("any", "/{rest...}", f"{upstream.url}/{{rest}}")]
        async with http_plane.running(tmp_path, routes, **settings) as plane:
            assert (await ask(plane, "GET", "/a", *lines)).status == 200
        (request,) = upstream.requests
        return request.header("traceparent"), request.header("tracestate")


@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_proxied_request_carries_its_context(tmp_path, is_direct):
    lines = (f"traceparent: {TRACE}", "tracestate: rojo=00f067aa0ba902b7", "tracestate: congo=t61rcWkgMzE")
    assert await forwarded(tmp_path, *lines, is_direct=is_direct) == ([TRACE], [STATE])


async def test_no_trace_is_started_unless_configured(tmp_path):
    assert await forwarded(tmp_path) == ([], [])


async def test_a_trace_is_started_if_configured(tmp_path):
    (trace,), states = await forwarded(tmp_path, trace_start=True)
    assert parse_traceparent(trace) == trace
    assert states == []


@pytest.mark.parametrize(
    "lines",
    [
        ("traceparent: 00-abc", f"tracestate: {STATE}"),
        (f"traceparent: {TRACE}", f"traceparent: {TRACE}", f"tracestate: {STATE}"),
    ],
)
async def test_an_invalid_traceparent_is_replaced_and_its_state_dropped(tmp_path, lines):
    (trace,), states = await forwarded(tmp_path, *lines)
    assert parse_traceparent(trace) == trace != TRACE
    assert states == []


async def test_an_invalid_tracestate_is_dropped_alone(tmp_path):
    assert await forwarded(tmp_path, f"traceparent: {TRACE}", "tracestate: =") == ([TRACE], [])


def call(**more):
    made = Call(protocol=Protocol.HTTP, address="/", ip="127.0.0.1", **more)
    made.principal = type("Who", (), {"consumer": "acme"})()
    return made


def stored(made, **publication):
    headers = _headers(made, Publication("a", b"1", **publication), "application/json")
    return headers.get("traceparent"), from_headers("a", "a", {**headers, "Nats-Sequence": "1"}, b"1")


def test_an_event_is_part_of_its_own_trace_or_else_of_that_of_its_call():
    made = call(traceparent=TRACE, tracestate=STATE)
    trace, event = stored(made)
    assert (trace, event.extensions) == (TRACE, {"tracestate": STATE})
    own = TRACE.replace("b7", "c8")
    trace, event = stored(made, traceparent=own, attributes={"tracestate": "a=1"})
    assert (trace, event.extensions) == (own, {"tracestate": "a=1"})
    trace, event = stored(made, attributes={"traceparent": own})
    assert (trace, event.extensions) == (own, {})
    assert stored(call())[0] is None


async def test_events_published_over_rest_carry_the_context_of_their_request(nats_server, tmp_path):
    async with event_plane.running(nats_server.url, tmp_path, [event_plane.channel("a")]) as plane:
        for body in (b"1", b"[2]"):
            made = plane.call(peer=event_plane.HttpExchange(body), method="POST", parameters={"address": "a"})
            made.traceparent, made.tracestate = TRACE, STATE
            await channel.publish_events(plane, made)
        made = plane.call(peer=event_plane.HttpExchange(), parameters={"address": "a"})
        await channel.history(plane, made)
        for event in json.loads(made.peer.body)["results"]:
            assert (event["traceparent"], event["tracestate"]) == (TRACE, STATE)


def test_an_event_with_an_invalid_traceparent_gets_another():
    trace, event = stored(call(traceparent=TRACE), traceparent="00-x", attributes={"tracestate": STATE})
    assert (trace, event.extensions) == (TRACE, {})
    trace, event = stored(call(), traceparent="00-x", attributes={"tracestate": STATE})
    assert parse_traceparent(trace) == trace
    assert event.extensions == {}


def test_frames_and_cloudevents_carry_the_context():
    _, event = stored(call(traceparent=TRACE, tracestate=STATE))
    for rendered in (json.loads(event.frame()), json.loads(event.cloudevent())):
        assert (rendered["traceparent"], rendered["tracestate"]) == (TRACE, STATE)
