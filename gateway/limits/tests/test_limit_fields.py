"""What callers are told of their limits: structured fields that a parser of others reads, on answers of every kind."""

from __future__ import annotations

import asyncio

import orjson
import pytest
import redis.asyncio as redis
from http_sf import parse
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.call import Call
from gateway.limiter import Limiter
from gateway.protocol import Protocol
from gateway.snapshot.picture import Limit, Metric
from gateway.snapshot.principal import Principal
from gateway.tests.http_plane import NOWHERE, caller_of, route, running, say, upstream_that
from gateway.tests.policed import policy

OPEN = Limit(Metric.OPEN_CONNECTIONS, 2)
EVENTS = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\ndata: 1\n\n"


@pytest.fixture
async def limiter():
    """A limiter that counts alone: its store is away."""
    client = redis.Redis.from_url(f"redis://127.0.0.1:{NOWHERE}", retry=Retry(NoBackoff(), 0))
    yield Limiter(client, owner="process-1")
    await client.aclose()


def principal(*limits: Limit) -> Principal:
    return Principal("acme", "k1", "gold", limits=limits)


def call(holder: Principal, protocol: Protocol = Protocol.WEBSOCKET) -> Call:
    return Call(protocol, "/x", "192.0.2.1", principal=holder)


async def test_fields_of_an_http_answer(limiter):
    one = call(principal(
        Limit(Metric.REQUESTS, 100, 60.0), Limit(Metric.BYTES_OUT, 5000, 1.0), Limit(Metric.MESSAGES_IN, 1, 1.0), OPEN
    ), Protocol.HTTP)  # fmt: skip
    await limiter.admit(one)
    headers = dict(limiter.headers(one))
    assert headers[b"ratelimit-policy"] == (
        b'"requests-per-60s";q=100;w=60, "messages_in-per-1s";q=1;w=1, "bytes_out-per-1s";q=5000;w=1;qu="content-bytes"'
    )
    assert headers[b"ratelimit"] == (
        b'"requests-per-60s";r=99;t=1, "messages_in-per-1s";r=1;t=0, "bytes_out-per-1s";r=5000;t=0'
    )


async def test_limits_of_one_metric_and_window_are_told_apart_by_their_scope(limiter):
    limits = [Limit(Metric.REQUESTS, amount, 60.0, scope=scope) for amount, scope in ((9, "consumer"), (5, "ip"))]
    one = call(principal(*limits), Protocol.HTTP)
    await limiter.admit(one)
    headers = dict(limiter.headers(one))
    assert headers[b"ratelimit-policy"] == b'"requests-per-60s";q=9;w=60, "requests-per-60s-ip";q=5;w=60'
    assert headers[b"ratelimit"] == b'"requests-per-60s";r=8;t=7, "requests-per-60s-ip";r=4;t=12'


async def test_fields_of_a_connection(limiter):
    one = call(principal(OPEN, Limit(Metric.MESSAGES_IN, 10, "month"), Limit(Metric.REQUESTS, 1, 1.0)))
    await limiter.admit(one)
    headers = dict(limiter.headers(one))
    assert headers[b"ratelimit-policy"] == (
        b'"messages_in-per-month";q=10;w=2678400, "open_connections";q=2;qu="concurrent-requests"'
    )
    assert headers[b"ratelimit"].startswith(b'"messages_in-per-month";r=10;t=')
    assert headers[b"ratelimit"].endswith(b', "open_connections";r=1')


LIMITS = st.builds(
    Limit,
    st.sampled_from([*Metric]),
    st.floats(0.001, 1e15) | st.integers(1, 2**53),
    st.none() | st.just("month") | st.floats(0.001, 1e9),
    st.none() | st.floats(1, 1e15),
    scope=st.sampled_from(["consumer", "key", "ip", "connection"]),
    mode=st.sampled_from(["enforce", "shadow"]),
)


@given(st.lists(LIMITS, max_size=8), st.sampled_from([Protocol.HTTP, Protocol.SSE, Protocol.WEBSOCKET]), st.booleans())
def test_whatever_the_limits_the_fields_are_lists_of_strings_with_their_parameters(limits, protocol, is_legacy):
    async def headers():
        client = redis.Redis.from_url(f"redis://127.0.0.1:{NOWHERE}")
        limiter = Limiter(client, owner="p", has_legacy_fields=is_legacy)
        return dict(limiter.headers(call(principal(*limits), protocol)))

    reported = asyncio.run(headers())
    if b"ratelimit-policy" not in reported:
        assert not reported
        return
    policies = parse(reported[b"ratelimit-policy"], tltype="list")
    states = parse(reported[b"ratelimit"], tltype="list")
    names = [limit.name for limit in limits if limit.mode == "enforce"]
    assert [name for name, _ in policies] == [name for name, _ in states]
    for name, parameters in policies:
        assert name in names
        assert parameters["q"] >= 0
        assert set(parameters) <= {"q", "w", "qu"}
        assert "w" not in parameters or parameters["w"] >= 1
    for _, parameters in states:
        assert set(parameters) <= {"r", "t"}
        assert parameters["r"] >= 0
        assert parameters.get("t", 0) >= 0
    assert all(int(reported[name]) >= 0 for name in reported if name.startswith(b"x-ratelimit-"))


async def test_units_are_those_of_the_draft():
    limits = [Limit(metric, 10, None if metric is Metric.OPEN_CONNECTIONS else 60.0) for metric in Metric]
    client = redis.Redis.from_url(f"redis://127.0.0.1:{NOWHERE}")
    limiter = Limiter(client, owner="p")
    units = {}
    for protocol in (Protocol.HTTP, Protocol.WEBSOCKET):
        reported = dict(limiter.headers(call(principal(*limits), protocol)))
        for name, parameters in parse(reported[b"ratelimit-policy"], tltype="list"):
            units[str(name).partition("-")[0]] = str(parameters.get("qu", "requests"))
    assert units == {
        "requests": "requests",
        "connections": "requests",
        "open_connections": "concurrent-requests",
        "messages_in": "requests",
        "messages_out": "requests",
        "bytes_in": "content-bytes",
        "bytes_out": "content-bytes",
        "tokens_in": "tokens",
        "tokens_out": "tokens",
    }
    await client.aclose()


@pytest.mark.parametrize("protocol", ["http", "sse"])
async def test_answers_and_refusals_tell_the_limits_and_when_to_come_back(tmp_path, protocol):
    async with upstream_that(say(EVENTS)) as upstream:
        routes = [route("r", "/r", upstream.url, protocol=protocol)]
        metric = "requests" if protocol == "http" else "connections"
        limits = [{"metric": metric, "amount": 1, "per": 60}]
        async with running(tmp_path, routes, limits=limits) as plane, caller_of(plane) as caller:
            answer, refused = await caller.ask("GET", "/r"), await caller.ask("GET", "/r")
            assert (answer.status, refused.status) == (200, 429)
            for reported in (answer, refused):
                [(name, policy)] = parse(reported.header("ratelimit-policy").encode(), tltype="list")
                [(_, state)] = parse(reported.header("ratelimit").encode(), tltype="list")
                assert (str(name), policy) == (f"{metric}-per-60s", {"q": 1, "w": 60})
                assert (state["r"], 0 < state["t"] <= 60) == (0, True)
            assert int(refused.header("retry-after")) >= state["t"]
            assert orjson.loads(refused.body)["violated-policies"] == [str(name)]
            assert answer.header("x-ratelimit-limit") is None


async def test_legacy_fields_are_told_where_they_are_asked_for(tmp_path):
    async with upstream_that(say(EVENTS)) as upstream:
        limits = [{"metric": "requests", "amount": 5, "per": 60}, {"metric": "bytes_out", "amount": 1000, "per": 1}]
        async with (
            running(tmp_path, [route("r", "/r", upstream.url)], limits=limits, legacy_ratelimit_headers=True) as plane,
            caller_of(plane) as caller,
        ):
            answer = await caller.ask("GET", "/r")
            assert answer.header("x-ratelimit-limit") == "5"
            assert answer.header("x-ratelimit-remaining") == "4"
            assert 1 <= int(answer.header("x-ratelimit-reset")) <= 12


@pytest.mark.parametrize("limits", [[], [{"metric": "requests", "amount": 500, "per": 60}]], ids=["none", "of a tier"])
async def test_legacy_fields_tell_the_limit_of_a_route_where_less_is_left_of_it(tmp_path, limits):
    own = policy("rate-limit", rateLimitBy="user", requestsAllowed=2, timeWindowMinutes=60)
    async with upstream_that(say(EVENTS)) as upstream:
        routes = [route("r", "/r", upstream.url, policies=[own])]
        async with running(tmp_path, routes, limits=limits, legacy_ratelimit_headers=True) as plane:
            for status, left in ((200, "1"), (200, "0"), (429, "0")):
                async with caller_of(plane) as caller:
                    answer = await caller.ask("GET", "/r")
                    reply = answer.status, answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")
                    assert reply == (status, "2", left)
