"""Plain calls are carried by callbacks, and handed over to the path wherever something has to be awaited."""

import asyncio
from dataclasses import replace

import pytest

from gateway.server import carrying_http
from gateway.server.carrier import CarriedCall
from gateway.snapshot.documents import Limit, Metric
from gateway.tests.http_plane import caller_of, eventually, route, running, upstream_that

LIMITS = [{"metric": "requests", "amount": 1000, "per": 60}, {"metric": "bytes_out", "amount": 10**6, "per": 60}]
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def driver():
    """Begin as the product does."""


@pytest.fixture
def carried(monkeypatch):
    """Count the calls that are carried to their end, and those that are handed over."""
    counts = {"whole": 0, "handed over": 0}
    to_its_end, hand_over = carrying_http.CarryingHttp.carried_to_its_end, CarriedCall.hand_over

    def count_whole(self):
        counts["whole"] += 1
        to_its_end(self)

    def count_handed_over(self, data=b""):
        counts["handed over"] += 1
        hand_over(self, data)

    monkeypatch.setattr(carrying_http.CarryingHttp, "carried_to_its_end", count_whole)
    monkeypatch.setattr(CarriedCall, "hand_over", count_handed_over)
    return counts


class Behind:
    """An upstream that answers ``PLAIN`` first, and then what a test says, once it says so."""

    def __init__(self):
        self.reply = PLAIN
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_left = asyncio.Event()
        self.closes_next = False

    async def answer(self, requested, reader, writer):
        if not self.may_answer.is_set():
            await asyncio.wait(
                [asyncio.ensure_future(self.may_answer.wait()), leaving := asyncio.ensure_future(reader.read(1))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            if leaving.done():
                self.is_left.set()
                return True
            leaving.cancel()
        if self.closes_next:
            self.closes_next = False
            return True
        for part in self.reply if isinstance(self.reply, list) else [self.reply]:
            writer.write(part)
            await asyncio.sleep(0.005)
        return False


@pytest.fixture
async def behind():
    answering = Behind()
    async with upstream_that(answering.answer) as upstream:
        answering.upstream = upstream
        yield answering


@pytest.fixture
async def plane(tmp_path, behind):
    routes = [route("r", "/r/{rest...}", behind.upstream.url + "/{rest}")]
    async with running(tmp_path, routes, limits=LIMITS) as plane:
        yield plane


async def warm(caller):
    """Call once: the caller is proved then, and a connection to the upstream is open."""
    assert (await caller.ask("GET", "/r/first")).status == 200


async def test_a_plain_call_is_carried_without_a_task(plane, behind, carried, monkeypatch):
    async with caller_of(plane) as caller:
        await warm(caller)
        (connection,) = plane.server._site.open
        monkeypatch.setattr(type(connection), "_start_asgi_task", None)
        for method, body in (("GET", b""), ("POST", b"abc"), ("PUT", b"x" * 2000), ("DELETE", b"")):
            answer = await caller.ask(method, "/r/a%2Fb?x=1&ticketless", "x-more: yes", body=body)
            assert (answer.status, answer.body) == (200, b"ok")
            asked = behind.upstream.requests[-1]
            assert (asked.method, asked.target, asked.body) == (method, "/a%2Fb?x=1&ticketless", body)
            assert asked.header("x-consumer-name") == ["acme"]
            assert not asked.header("x-api-key")
    assert carried == {"whole": 4, "handed over": 0}


async def test_calls_to_many_targets_are_carried_by_one_plan(plane, behind, carried):
    async with caller_of(plane) as caller:
        await warm(caller)
        for target in ("/r/1", "/r/2?a=1", "/r/2?", "/r/a%2Fb", "/r/x/y"):
            assert (await caller.ask("GET", target)).body == b"ok"
        (connection,) = plane.server._site.open
        assert len(connection.carrier.plans) == 1
    asked = [request.target for request in behind.upstream.requests[1:]]
    assert asked == ["/1", "/2?a=1", "/2?", "/a%2Fb", "/x/y"]
    assert carried == {"whole": 5, "handed over": 0}


async def test_prefixes_with_parameters_are_reported_as_each_call_has_them(tmp_path, behind, carried):
    routes = [route("t", "/of/{tenant}/items", behind.upstream.url + "/items")]
    async with running(tmp_path, routes, limits=LIMITS) as plane, caller_of(plane) as caller:
        for tenant in ("first", "a", "b"):
            await caller.ask("GET", f"/of/{tenant}/items")
    prefixes = [request.header("x-forwarded-prefix") for request in behind.upstream.requests]
    assert prefixes == [["/of/first"], ["/of/a"], ["/of/b"]]
    assert carried == {"whole": 2, "handed over": 0}


@pytest.mark.parametrize("query", ["ticket=abc", "a=apim_x"])
async def test_a_target_that_may_hold_a_credential_takes_the_path(plane, carried, query):
    async with caller_of(plane) as caller:
        await warm(caller)
        await caller.ask("GET", f"/r/second?{query}")
    assert carried == {"whole": 0, "handed over": 0}


@pytest.mark.parametrize(
    "lines",
    [
        ("origin: https://a.test", "origin: https://b.test"), ("expect: 100-continue",), ("upgrade: h2c",),
        ("te: trailers",),
        ("connection: close",), ("tracestate: a=b",), ("via: 1.1 somebody",), ("x-http-method-override: DELETE",),
        ("content-length: 0",), ("traceparent: forged",),
        ("authorization: Bearer another",), ("host: second.test",),
    ],
)  # fmt: skip
async def test_a_head_that_needs_a_look_takes_the_path(plane, carried, lines):
    async with caller_of(plane) as caller:
        await warm(caller)
        await caller.ask("GET", "/r/second", *lines)
    assert carried == {"whole": 0, "handed over": 0}


@pytest.mark.parametrize("name", ["x-other", "accept", "cookie", "user-agent"])
async def test_a_head_that_repeats_the_key_takes_the_path_which_takes_it_out(plane, behind, carried, name):
    async with caller_of(plane) as caller:
        await warm(caller)
        for _ in range(2):
            assert (await caller.ask("GET", "/r/second", f"{name}: a={plane.key.text}")).status == 200
            assert plane.key.text not in str(behind.upstream.requests[-1].headers)
        assert carried == {"whole": 0, "handed over": 0}
        assert (await caller.ask("GET", "/r/second", f"{name}: a=b")).status == 200
    assert carried == {"whole": 1, "handed over": 0}


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nend\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: /a\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nset-cookie: a=b; path=/\r\nset-cookie: c=d\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\netag: a\r\n\r\n",
    ],
)
async def test_a_whole_response_is_carried(plane, behind, carried, reply):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.reply = reply
        answer = await caller.ask("GET", "/r/second")
        assert answer.status == int(reply[9:12])
        assert answer.header("location") == ("/r/a" if answer.status == 302 else None)
        assert [value for name, value in answer.headers if name == "set-cookie"] in ([], ["a=b; path=/r", "c=d"])
        behind.reply = PLAIN
        assert (await caller.ask("GET", "/r/third")).body == b"ok"
    assert carried == {"whole": 2, "handed over": 0}


POLICIES = [
    {"type": "set-headers", "options": {"headers": {"x-set": "1"}}},
    {"type": "remove-headers", "options": {"headers": ["x-asked"]}},
    {"type": "set-headers", "options": {"headers": {"x-answered": "1"}, "on": "response"}},
    {"type": "cors", "options": {"allowed_origins": ["https://page.test"]}},
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_heads_that_policies_change_are_carried(tmp_path, behind, carried, method):
    routes = [route("r", "/r/{rest...}", behind.upstream.url + "/{rest}", policies=POLICIES)]
    async with running(tmp_path, routes, limits=LIMITS) as plane, caller_of(plane) as caller:
        await warm(caller)
        behind.reply = PLAIN if method != "HEAD" else PLAIN[:-2]
        body = b"abc" if method == "POST" else b""
        answer = await caller.ask(method, "/r/second", "origin: https://page.test", "x-asked: 1", body=body)
        assert answer.header("x-answered") == "1"
        assert answer.header("access-control-allow-origin") == "https://page.test"
        asked = behind.upstream.requests[-1]
        assert (asked.method, asked.body, asked.header("x-set"), asked.header("x-asked")) == (method, body, ["1"], [])
        assert asked.header("origin") == ["https://page.test"]
    assert carried == {"whole": 1, "handed over": 0}


async def test_an_origin_that_a_key_may_not_be_used_from_is_refused(plane, carried):
    plane.snapshot._set(
        "key", plane.key.id, replace(plane.snapshot.key(plane.key.id), allowed_origins=("https://a.test",))
    )
    async with caller_of(plane) as caller:
        await warm(caller)
        for origin, status in (("https://a.test", 200), ("https://b.test", 403), ("https://a.test", 200)):
            assert (await caller.ask("GET", "/r/second", f"origin: {origin}")).status == status
    assert carried == {"whole": 2, "handed over": 0}


@pytest.mark.parametrize(
    "reply",
    [
        [PLAIN[:20], PLAIN[20:]],
        [PLAIN[:-1], PLAIN[-1:]],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: a\r\n\r\n",
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n\r\n"],
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + PLAIN,
        b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 11\r\n\r\ndata: ok\n\n\n",
    ],
)
async def test_a_response_that_needs_a_look_is_handed_over(plane, behind, carried, reply):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.reply = reply
        caller.send(caller.head("GET", "/r/second"))
        answer = await caller.answer_head()
        while answer.status == 103:
            answer = await caller.answer_head()
        assert answer.status == int(reply[9:12]) if isinstance(reply, bytes) and b" 103 " not in reply else 200
    assert carried == {"whole": 0, "handed over": 1}
    await eventually(lambda: sum(tally.calls for tally in plane.usage._tallies.values()) == 2)


async def test_a_request_is_repeated_if_the_upstream_had_closed(plane, behind, carried):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.closes_next = True
        assert (await caller.ask("GET", "/r/second")).status == 200
    assert behind.upstream.connections == 2
    assert carried == {"whole": 0, "handed over": 1}


async def test_a_client_that_leaves_ends_the_upstreams_call(plane, behind, carried):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.may_answer.clear()
        caller.send(caller.head("GET", "/r/second"))
        await eventually(lambda: len(behind.upstream.requests) == 2)
        caller.abort()
        async with asyncio.timeout(10):
            await behind.is_left.wait()
    await eventually(lambda: ("abandoned", "client_gone") in plane.outcomes)
    assert not plane.connections.in_flight.carried


async def test_a_key_revoked_meanwhile_ends_the_call(plane, behind, carried):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.may_answer.clear()
        caller.send(caller.head("GET", "/r/second"))
        await eventually(lambda: len(behind.upstream.requests) == 2)
        assert len(plane.connections.in_flight) == 1
        plane.snapshot.apply([("key", plane.key.id, None)])
        plane.connections.in_flight.refresh()
        answer = await caller.answer()
        assert (answer.status, b"key-revoked" in answer.body) == (401, True)
        behind.may_answer.set()
        assert (await caller.ask("GET", "/r/third")).status == 401


async def test_a_caller_whose_rights_are_changed_meanwhile_gets_its_answer(plane, behind, carried):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.may_answer.clear()
        caller.send(caller.head("GET", "/r/second"))
        await eventually(lambda: len(behind.upstream.requests) == 2)
        plane.snapshot.apply([("tier", "free", {"name": "free", "limits": []})])
        plane.connections.in_flight.refresh()
        behind.may_answer.set()
        assert (await caller.answer()).body == b"ok"
        assert (await caller.ask("GET", "/r/third")).header("ratelimit") is None


async def test_requests_that_do_not_wait_for_answers_are_answered_in_order(plane, behind, carried):
    async with caller_of(plane) as caller:
        await warm(caller)
        behind.may_answer.clear()
        for number in range(3):
            caller.send(caller.head("GET", f"/r/{number}"))
            await eventually(lambda number=number: len(behind.upstream.requests) >= min(2, number + 2))
        behind.may_answer.set()
        for _ in range(3):
            assert (await caller.answer()).body == b"ok"
        assert [asked.target for asked in behind.upstream.requests[1:]] == ["/0", "/1", "/2"]
        assert (await caller.ask("GET", "/r/last")).body == b"ok"


async def test_a_limit_used_up_refuses_carried_calls_as_others(plane, behind, carried):
    limits = (Limit(Metric.REQUESTS, 3, 3600.0), Limit(Metric.BYTES_OUT, 10**6, 3600.0))
    tier = plane.snapshot.membership("acme").tier
    plane.snapshot._set("tier", "free", replace(tier, limits=limits))
    async with caller_of(plane) as caller:
        statuses = [(await caller.ask("GET", "/r/x")).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert carried == {"whole": 2, "handed over": 0}


async def test_a_slow_upstream_is_refused_in_time(tmp_path, behind, carried):
    routes = [route("r", "/r/{rest...}", behind.upstream.url + "/{rest}", timeouts={"first_byte_s": 0.3})]
    async with running(tmp_path, routes) as plane, caller_of(plane) as caller:
        await warm(caller)
        behind.may_answer.clear()
        answer = await caller.ask("GET", "/r/second")
        assert (answer.status, b"0.3 s (first_byte_s)" in answer.body) == (504, True)
        assert carried == {"whole": 0, "handed over": 1}
