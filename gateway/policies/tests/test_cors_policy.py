"""``cors``: answers vary by Origin, the upstream's fields give way, preflights are answered; without it, all passes."""

import pytest

from gateway.policies.cors import cors, varied_by_origin
from gateway.policies.options import BadOption
from gateway.policies.tests.policed_route import JSON, PERSON, answers
from gateway.tests.http_plane import ask, echo, route, running, say, upstream_that
from gateway.tests.policed import policy

APP, OTHER = "https://app.example", "https://evil.example"
ORIGIN = f"origin: {APP}"
WANTS_POST = "access-control-request-method: POST"
UPSTREAM = (
    "access-control-allow-origin: *",
    "access-control-allow-credentials: true",
    "access-control-expose-headers: x-inner",
    "vary: Accept-Encoding, origin",
)
PREFLIGHT_OF_UPSTREAM = say(
    "HTTP/1.1 200 OK\r\naccess-control-allow-origin: https://its.example\r\naccess-control-allow-methods: PURR\r\n"
    "access-control-max-age: 7\r\nvary: Origin\r\ncontent-length: 0\r\n\r\n"
)


def values(answer, name):
    return [value for field, value in answer.headers if field == name]


@pytest.mark.parametrize("origin", [(), (ORIGIN,), (f"origin: {OTHER}",)], ids=["none", "allowed", "foreign"])
async def test_every_answer_varies_by_origin_once_and_has_our_cors_headers_alone(served, origin):
    """As rs/cors#10, expressjs/cors/pull/428, fruitcake/laravel-cors#20 and Kong/kong/pull/3765 have it."""
    limits = [{"metric": "requests", "amount": 1, "per": 60}]
    async with served(policy("cors", allowed_origins=[APP]), answer=answers("{}", *UPSTREAM), limits=limits) as plane:
        answered = await ask(plane, "GET", "/echo", *origin)
        limited = await ask(plane, "GET", "/echo", *origin)
        unknown = await ask(plane, "GET", "/echo", *origin, key=None)
        assert [answered.status, limited.status, unknown.status] == [200, 429, 401]
        assert values(answered, "vary") == ["Accept-Encoding, Origin"]
        for answer in (answered, limited, unknown):
            assert "Origin" in answer.header("vary")
            allowed = [APP] if ORIGIN in origin else []
            assert values(answer, "access-control-allow-origin") == allowed
            assert values(answer, "access-control-expose-headers") == (["*"] if allowed else [])
            assert not values(answer, "access-control-allow-credentials")


async def test_errors_of_every_kind_vary_by_origin(served):
    refusing = policy("validate", schema=PERSON)
    async with served(policy("cors", allowed_origins=[APP]), refusing, methods=["POST"]) as plane:
        plane.behind.answer = say("nonsense\r\n\r\n")
        invalid = await ask(plane, "POST", "/echo", ORIGIN, JSON, body=b"{}")
        broken = await ask(plane, "POST", "/echo", ORIGIN, JSON, body=b'{"name": "a"}')
        other_method = await ask(plane, "DELETE", "/echo", ORIGIN)
        preflight = await ask(plane, "OPTIONS", "/echo", ORIGIN, "access-control-request-method: DELETE", key=None)
        plane.draining = True
        draining = await ask(plane, "POST", "/echo", ORIGIN, JSON, body=b'{"name": "a"}')
    statuses = [answer.status for answer in (invalid, broken, other_method, preflight, draining)]
    assert statuses == [422, 502, 405, 405, 503]
    for answer in (invalid, broken, other_method, preflight, draining):
        assert (answer.header("vary"), answer.header("access-control-allow-origin")) == ("Origin", APP)


async def test_credentials_exposed_headers_and_max_age_are_options(served):
    options = {"allow_credentials": True, "exposed_headers": ["X-Total", "ETag"], "max_age_s": 60}
    async with served(policy("cors", allowed_origins=[APP], **options), answer=answers("{}", *UPSTREAM)) as plane:
        answer = await ask(plane, "GET", "/echo", ORIGIN)
        assert values(answer, "access-control-allow-origin") == [APP]
        assert values(answer, "access-control-allow-credentials") == ["true"]
        assert values(answer, "access-control-expose-headers") == ["X-Total, ETag"]
        preflight = await ask(plane, "OPTIONS", "/echo", ORIGIN, WANTS_POST, key=None)
        assert preflight.status == 204
        assert preflight.header("access-control-allow-credentials") == "true"
        assert preflight.header("access-control-max-age") == "60"
        assert "POST" in preflight.header("access-control-allow-methods")
        foreign = await ask(plane, "OPTIONS", "/echo", f"origin: {OTHER}", WANTS_POST, key=None)
        for each in (preflight, foreign):
            assert "Origin" in each.header("vary")
        assert not any(name.startswith("access-control") for name, _ in foreign.headers)


async def test_with_credentials_every_header_is_exposed_by_its_name(served):
    """There ``*`` is a name like any other (Fetch, 3.2.5)."""
    async with served(policy("cors", allowed_origins=[APP], allow_credentials=True)) as plane:
        exposed = (await ask(plane, "GET", "/echo", ORIGIN)).header("access-control-expose-headers")
        assert "cache-control" in exposed.split(", ")
        refused = await ask(plane, "GET", "/echo", ORIGIN, key=None)
        assert "www-authenticate" in refused.header("access-control-expose-headers").split(", ")


async def test_without_the_policy_the_upstreams_cors_and_preflight_pass(served):
    """As Kong/kong#3735 and #1292 have it: the upstream knows its pages, and a preflight carries no credential."""
    async with served(answer=answers("{}", *UPSTREAM)) as plane:
        answer = await ask(plane, "GET", "/echo", ORIGIN)
        assert values(answer, "access-control-allow-origin") == ["*"]
        assert values(answer, "access-control-allow-credentials") == ["true"]
        assert values(answer, "vary") == ["Accept-Encoding, origin"]
    async with served(answer=PREFLIGHT_OF_UPSTREAM, methods=["POST"]) as plane:
        preflight = await ask(plane, "OPTIONS", "/echo?a=b", ORIGIN, WANTS_POST, "x-page: 1", key=None)
        assert (preflight.status, preflight.header("access-control-max-age")) == (200, "7")
        assert preflight.header("access-control-allow-origin") == "https://its.example"
        forwarded = plane.behind.requests[-1]
        assert (forwarded.method, forwarded.target) == ("OPTIONS", "/echo?a=b")
        assert forwarded.header("origin") == [APP]
        assert forwarded.header("access-control-request-method") == ["POST"]
        assert not [name for name, _ in forwarded.headers if name.startswith("x-consumer-")]
        assert plane.outcomes == [("ok", "")]


async def test_what_looks_like_a_preflight_brings_nothing_else_to_the_upstream(served):
    """Without a key only what browsers ask ahead passes: no body, no method of another route, no credential."""
    policies = [
        policy("set-headers", headers={"X-Lent": "secret"}),
        policy("rate-limit", rateLimitBy="all", requestsAllowed=1, timeWindowMinutes=1),
    ]
    async with served(*policies, methods=["POST"]) as plane:
        for _ in range(2):
            assert (await ask(plane, "OPTIONS", "/echo", ORIGIN, WANTS_POST, key=None)).status == 200
        assert not plane.behind.requests[-1].header("x-lent")
        assert (await ask(plane, "POST", "/echo")).status == 200
        sent = len(plane.behind.requests)
        assert (await ask(plane, "OPTIONS", "/echo", ORIGIN, key=None)).status == 405
        assert (await ask(plane, "OPTIONS", "/echo", WANTS_POST, key=None)).status == 405
        assert (await ask(plane, "OPTIONS", "/echo", ORIGIN, WANTS_POST, body=b"{}", key=None)).status == 405
        wants_delete = "access-control-request-method: DELETE"
        assert (await ask(plane, "OPTIONS", "/echo", ORIGIN, wants_delete, key=None)).status == 405
        assert len(plane.behind.requests) == sent
    async with served(policy("ip-restriction", deny=["127.0.0.1"])) as plane:
        assert (await ask(plane, "OPTIONS", "/echo", ORIGIN, WANTS_POST, key=None)).status == 403
        assert not plane.behind.requests


async def test_a_preflight_cannot_become_another_request(tmp_path):
    override = "x-http-method-override"
    async with upstream_that(echo) as upstream:
        routes = [route("echo", "/echo", upstream.url, handler={"override_headers": [override]})]
        async with running(tmp_path, routes) as plane:
            assert (await ask(plane, "POST", "/echo", f"{override}: PUT")).status == 200
            assert upstream.requests[-1].header(override) == ["PUT"]
            lines = (ORIGIN, WANTS_POST, f"{override}: DELETE", "authorization: Bearer mine")
            assert (await ask(plane, "OPTIONS", "/echo", *lines, key=None)).status == 200
            assert not upstream.requests[-1].header(override)
            assert not upstream.requests[-1].header("authorization")


async def test_own_answers_are_the_same_with_an_origin_and_without(tmp_path):
    """A cache that keeps the one must be able to serve the other (rs/cors#10; Fetch, "CORS and HTTP caches")."""
    builtin = {"name": "events", "path": "/v1/events", "protocol": "sse", "reserved_override": True, "methods": ["GET"]}
    for routes in ([], [builtin | {"handler": {"type": "builtin"}, "policies": []}]):
        async with running(tmp_path, routes) as plane:
            for path, key in (("/v1/openapi.json", ""), ("/v1/events?channel=a", None), ("/nowhere", None)):
                plain, of_page = await ask(plane, "GET", path, key=key), await ask(plane, "GET", path, ORIGIN, key=key)
                assert values(plain, "access-control-allow-origin") == ["*"]
                for name in ("access-control-allow-origin", "access-control-expose-headers", "vary"):
                    assert values(plain, name) == values(of_page, name)


async def test_an_endpoint_with_policies_stays_readable_for_every_page(tmp_path):
    handler = {"type": "builtin"}
    for policies, allowed in (([], "*"), ([policy("cors", allowed_origins=[APP])], APP)):
        document = {"name": "events", "path": "/v1/events", "protocol": "sse", "reserved_override": True}
        routes = [document | {"handler": handler, "policies": policies, "methods": ["GET"]}]
        async with running(tmp_path, routes) as plane:
            wants_get = "access-control-request-method: GET"
            preflight = await ask(plane, "OPTIONS", "/v1/events?channel=a", ORIGIN, wants_get, key=None)
            refused = await ask(plane, "GET", "/v1/events?channel=a", ORIGIN, key=None)
        assert (preflight.status, refused.status) == (204, 401)
        for answer in (preflight, refused):
            assert values(answer, "access-control-allow-origin") == [allowed]


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({"allowed_origins": ["https://a/"]}, "allowed_origins[0]"),
        ({"allowed_origins": ["*"], "allow_credentials": True}, "allow_credentials"),
        ({"allow_credentials": "yes"}, "allow_credentials"),
        ({"exposed_headers": "X-A"}, "exposed_headers"),
        ({"exposed_headers": ["X-A", "X B"]}, "exposed_headers[1]"),
        ({"exposed_headers": ["X"] * 101}, "exposed_headers"),
        ({"max_age_s": -1}, "max_age_s"),
        ({"max_age_s": True}, "max_age_s"),
        ({"max_age_s": 86_401}, "max_age_s"),
        ({"origins": []}, "origins"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options, at):
    with pytest.raises(BadOption) as refused:
        cors(options)
    assert refused.value.at == at


@pytest.mark.parametrize(
    ("present", "merged"),
    [
        ([], b"Origin"),
        ([b"Accept-Encoding"], b"Accept-Encoding, Origin"),
        ([b"origin, Accept"], b"Accept, Origin"),
        ([b"Accept", b"ACCEPT, Origin", b"Authorization, X-API-Key"], b"Accept, Authorization, X-API-Key, Origin"),
        ([b"*"], b"*"),
        ([b" , Accept,"], b"Accept, Origin"),
    ],
)
def test_vary_is_merged(present, merged):
    headers = [(b"x-a", b"Origin"), *((b"vary", value) for value in present)]
    assert varied_by_origin(headers) == merged
