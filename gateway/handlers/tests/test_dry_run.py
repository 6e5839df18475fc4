from types import SimpleNamespace

import pytest

from gateway.handlers import me
from gateway.limit import limit
from gateway.link.nats import JOBS_BUCKET
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.tests.event_plane import HttpExchange, channel, running
from gateway.tests.policed import HOOKS

ROUTES = [
    {
        "name": "orders",
        "path": "/orders",
        "methods": ["GET"],
        "protocol": "http",
        "handler": {"type": "upstream", "url": "http://127.0.0.1:1/"},
        "policies": [],
    },
    {
        "name": "inner",
        "path": "/inner",
        "methods": ["GET"],
        "protocol": "http",
        "handler": {"type": "upstream", "url": "http://127.0.0.1:1/"},
        "policies": [{"type": "ip-restriction", "options": {"allow": ["10.0.0.0/8"]}}],
    },
]


@pytest.fixture
async def plane(nats_server, tmp_path):
    async with running(nats_server.url, tmp_path, [channel("trades")], routes=ROUTES) as plane:
        plane.change_key(scopes=["publish:trades", "subscribe:*", "call:*"])
        yield plane


async def ask(plane, query):
    exchange = HttpExchange()
    call = plane.call(peer=exchange, query=query.encode())
    await me.show(plane, call)
    return exchange.parsed


async def test_what_is_allowed_is_said_and_spends_nothing(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 5, "per": 3600}])
    for _ in range(3):
        verdict = await ask(plane, "would=publish:trades&n=5")
        assert verdict["allowed"] is True
        assert verdict["limits"][0]["remaining"] == 5


async def test_asking_is_no_request_and_is_answered_where_none_is_left(plane):
    plane.change_tier([{"metric": "requests", "amount": 1, "per": 3600}])
    for _ in range(3):
        await limit(plane.limiter, plane.call(handler="me", query=b"would=call:orders"))
    assert (await ask(plane, "would=call:orders"))["allowed"] is True
    await limit(plane.limiter, plane.call(handler="me"))
    with pytest.raises(Refused):
        await limit(plane.limiter, plane.call(handler="me"))
    await limit(plane.limiter, plane.call(handler="me", query=b"would=call:orders"))
    verdict = await ask(plane, "would=call:orders")
    assert (verdict["allowed"], verdict["policy"]) == (False, "requests-per-3600s")


async def test_what_a_limit_would_refuse_is_said_with_its_name_and_until_when(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 10, "per": 10}])
    await plane.limiter.charge(plane.call(), messages_in=8)
    verdict = await ask(plane, "would=publish:trades&n=5")
    assert (verdict["allowed"], verdict["reason"], verdict["policy"]) == (False, "rate-limited", "messages_in-per-10s")
    assert 0 < verdict["retry_after_s"] <= 5
    assert verdict["until"].endswith("Z")
    assert (await ask(plane, "would=publish:trades&n=1"))["allowed"] is True


async def test_what_a_limit_never_holds_has_no_end(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 10, "per": 10}])
    verdict = await ask(plane, "would=publish:trades&n=11")
    assert (verdict["allowed"], verdict["retry_after_s"], verdict["until"]) == (False, None, None)


async def test_a_month_is_a_quota(plane):
    plane.change_tier([{"metric": "requests", "amount": 3, "per": "month"}])
    verdict = await ask(plane, "would=call:orders&n=4")
    assert (verdict["allowed"], verdict["reason"]) == (False, "quota-exceeded")


async def test_a_shadow_refuses_nothing_and_a_delay_is_said(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 1, "per": 10, "mode": "shadow"}])
    assert (await ask(plane, "would=publish:trades&n=9"))["allowed"] is True
    plane.change_tier([{"metric": "messages_in", "amount": 4, "per": 10, "exceed": "delay"}])
    await plane.limiter.charge(plane.call(), messages_in=4)
    verdict = await ask(plane, "would=publish:trades&n=2")
    assert verdict["allowed"] is True
    assert verdict["delayed_s"] > 0


@pytest.mark.parametrize(
    ("would", "reason", "policy"),
    [
        ("publish:news", "forbidden", "scopes"),
        ("jobs:report", "forbidden", "scopes"),
        ("subscribe:nowhere", "not-found", None),
        ("call:nowhere", "not-found", None),
        ("call:inner", "ip-not-allowed", "ip-restriction"),
    ],
)
async def test_what_is_refused_says_by_what(plane, would, reason, policy):
    verdict = await ask(plane, f"would={would}")
    assert (verdict["allowed"], verdict["reason"], verdict["policy"]) == (False, reason, policy)


@pytest.mark.parametrize("would", ["publish:trades", "subscribe:trades", "call:orders"])
async def test_what_has_a_right_and_no_limit_is_allowed(plane, would):
    verdict = await ask(plane, f"would={would}")
    assert (verdict["would"], verdict["n"], verdict["allowed"]) == (would, 1, True)
    assert verdict["consumer"] == "acme"


@pytest.mark.parametrize(
    "query",
    ["would=", "would=fly:x", "would=publish", "would=publish:", "n=1", "would=call:orders&n=0", "colour=red"]
    + [f"would=call:orders&n={n}" for n in ("-1", "1.5", "x", "9" * 30)]
    + ["would=call:orders&would=call:inner", "would=%ff"],
)
async def test_nonsense_is_refused(plane, query):
    with pytest.raises(Refused) as refused:
        await ask(plane, query)
    assert refused.value.reason.value == "invalid-request"


async def test_a_limit_that_delays_hides_none_that_refuses(plane):
    plane.change_tier(
        [
            {"metric": "messages_in", "amount": 4, "per": 20, "exceed": "delay"},
            {"metric": "messages_in", "amount": 4, "per": 10},
        ]
    )
    await plane.limiter.charge(plane.call(), messages_in=4)
    verdict = await ask(plane, "would=publish:trades&n=2")
    assert (verdict["allowed"], verdict["policy"]) == (False, "messages_in-per-10s")


async def test_who_would_wait_longer_than_the_gateway_waits_would_be_refused(plane):
    plane.change_tier([{"metric": "requests", "amount": 1, "per": 100, "exceed": "delay"}])
    await plane.limiter.admit(plane.call())
    verdict = await ask(plane, "would=call:orders")
    assert (verdict["allowed"], verdict["reason"]) == (False, "rate-limited")
    assert verdict["retry_after_s"] > 90


async def test_a_job_is_allowed_where_its_type_is_known(plane):
    plane.change_key(scopes=["jobs:*"])
    bucket = await plane.js.key_value(JOBS_BUCKET)
    await bucket.put("type.work", b'{"schema": {}}')
    assert (await ask(plane, "would=jobs:work"))["allowed"] is True
    verdict = await ask(plane, "would=jobs:nothing")
    assert (verdict["allowed"], verdict["reason"]) == (False, "not-found")


@pytest.mark.parametrize(
    "options",
    [
        {"rateLimitBy": "function", "function": f"{HOOKS}:limit_by_metadata"},
        {"rateLimitBy": "user", "requestsAllowed": 2, "timeWindowMinutes": 1},
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_limit_of_the_route_is_asked_and_not_spent_from(plane, operators_module, options, mode):
    policies = [{"type": "rate-limit", "options": options, "mode": mode}]
    plane.snapshot.apply([("route", "orders", {**ROUTES[0], "policies": policies})])
    for _ in range(3):
        assert (await ask(plane, "would=call:orders&n=2"))["allowed"] is True
    verdict = await ask(plane, "would=call:orders&n=3")
    assert verdict["allowed"] is (mode == "shadow")
    assert verdict.get("policy") == (None if mode == "shadow" else "route-requests-per-60s")


@pytest.mark.parametrize(
    ("handler", "limit"),
    [
        ({"type": "job", "job_type": "work"}, {"metric": "open_jobs", "amount": 2}),
        ({"type": "channel", "channel": "trades"}, {"metric": "messages_in", "amount": 2, "per": 60}),
    ],
)
async def test_a_route_that_takes_jobs_or_messages_is_asked_for_their_limits(plane, handler, limit):
    await (await plane.js.key_value(JOBS_BUCKET)).put("type.work", b'{"schema": {}}')
    plane.snapshot.apply([("route", "orders", {**ROUTES[0], "methods": ["POST"], "handler": handler})])
    plane.change_tier([limit])
    assert (await ask(plane, "would=call:orders&n=2"))["allowed"] is True
    verdict = await ask(plane, "would=call:orders&n=3")
    assert (verdict["allowed"], verdict["policy"].partition("-")[0]) == (False, limit["metric"])


async def test_a_route_to_a_job_type_that_is_gone_leads_nowhere(plane):
    route = {**ROUTES[0], "methods": ["POST"], "handler": {"type": "job", "job_type": "gone"}}
    plane.snapshot.apply([("route", "orders", route)])
    verdict = await ask(plane, "would=call:orders")
    assert (verdict["allowed"], verdict["reason"]) == (False, "not-found")


async def test_what_is_left_of_a_limit_by_address_is_told_to_who_calls_from_one(plane):
    plane.change_tier([{"metric": "messages_in", "amount": 10, "per": 3600, "scope": "ip"}])
    await plane.limiter.charge(plane.call(), messages_in=8)
    assert [(fact["name"], fact["remaining"]) for fact in (await ask(plane, ""))["limits"]] == [
        ("messages_in-per-3600s-ip", 2)
    ]


@pytest.mark.parametrize(
    ("entry", "target"),
    [
        ({"protocol": "sse", "path": "/v1/events"}, "/v1/events"),
        ({"protocol": "websocket", "path": "/v1/stream"}, "/v1/stream"),
        ({"protocol": "mqtt", "path": "/mqtt"}, "mqtt"),
    ],
)
async def test_the_gateways_own_doors_need_no_right_to_call_and_are_asked_for_their_limits(plane, entry, target):
    options = {"rateLimitBy": "user", "requestsAllowed": 2, "timeWindowMinutes": 1}
    policies = [{"type": "rate-limit", "options": options}]
    route = {"name": "door", "methods": ["GET"], "handler": {"type": "builtin"}, "reserved_override": True}
    plane.snapshot.apply([("route", "door", {**route, **entry, "policies": policies})])
    plane.change_key(scopes=[])
    assert (await ask(plane, "would=call:door&n=2"))["allowed"] is True
    entering = plane.call(
        Protocol(entry["protocol"]), target=target, route=plane.snapshot.route("door"), peer=SimpleNamespace()
    )
    await plane.policies.inbound(entering)
    verdict = await ask(plane, "would=call:door&n=2")
    assert (verdict["allowed"], verdict["policy"]) == (False, "route-requests-per-60s")
