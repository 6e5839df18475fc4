"""Who a credential proves to be, and what it may do."""

import hmac
import time
from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from gateway import authenticate as module
from gateway.authenticate import Authenticator
from gateway.call import Call
from gateway.credentials.api_keys import Credential, digest, new_key
from gateway.identity.rights import allowed
from gateway.identity.tickets import Tickets
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb

PEPPER = b"pepper"
KEY = new_key(PEPPER)


def plane_with(**key):
    document = {
        "id": KEY.id,
        "consumer": "acme",
        "digest": KEY.digest,
        "scopes": ["call:quotes", "subscribe:sensors/*"],
    }
    snapshot = Snapshot.from_documents(
        {"tier": [{"name": "gold"}], "consumer": [{"name": "acme", "tier": "gold"}], "key": [document | key]}
    )
    config = SimpleNamespace(
        key_pepper=PEPPER, failed_keys_per_minute=20, ticket_s=30, ticket_idle_s=300, engine_timeout_s=1
    )
    store = SimpleNamespace(getdel=nothing_stored, register_script=lambda text: None)
    tickets = Tickets(store, config, snapshot, key_sets=None)
    return SimpleNamespace(snapshot=snapshot, authenticator=Authenticator(config, snapshot, None, tickets))


async def nothing_stored(name):
    return None


def call_with(text=KEY.text, **more):
    return Call(protocol=Protocol.HTTP, address="/", ip="192.0.2.7", credential=Credential("key", text), **more)


async def refusal(plane, call):
    with pytest.raises(Refused) as caught:
        await plane.authenticator.authenticate(call)
    return caught.value


async def test_a_valid_key_proves_its_consumer():
    principal = await plane_with().authenticator.authenticate(call_with())
    assert (principal.consumer, principal.key, principal.tier) == ("acme", KEY.id, "gold")


@pytest.mark.parametrize(
    ("plane", "call", "cause"),
    [
        (plane_with(), call_with("nonsense"), "key-malformed"),
        (plane_with(), call_with(new_key(PEPPER).text), "key-unknown"),
        (plane_with(digest="ab"), call_with(), "key-unknown"),
        (plane_with(revoked_at=1.0), call_with(), "key-revoked"),
        (plane_with(expires_at=1.0), call_with(), "key-expired"),
        (plane_with(consumer="nobody"), call_with(), "consumer-disabled"),
    ],
    ids=["malformed", "unknown", "wrong secret", "revoked", "expired", "no consumer"],
)
async def test_bad_keys_look_the_same_and_are_told_apart_in_the_log(plane, call, cause):
    refused = await refusal(plane, call)
    assert refused.cause == cause
    assert refused.problem() == Refused(Reason.UNAUTHENTICATED).problem()


async def test_bad_keys_cost_the_same_work_so_that_time_tells_nothing(monkeypatch):
    """Timing itself decides no test: what is done is counted instead."""
    work = []
    monkeypatch.setattr(module, "digest", lambda text, pepper: work.append("digest") or digest(text, pepper))
    compared = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: work.append("compare") or compared(one, other))
    cases = {
        "unknown": (plane_with(), new_key(PEPPER).text),
        "wrong secret": (plane_with(digest="ab" * 32), KEY.text),
        "revoked": (plane_with(revoked_at=1.0), KEY.text),
        "expired": (plane_with(expires_at=1.0), KEY.text),
        "disabled": (plane_with(consumer="nobody"), KEY.text),
    }
    done = {}
    for name, (plane, text) in cases.items():
        work.clear()
        await refusal(plane, call_with(text))
        done[name] = tuple(work)
    assert len(set(done.values())) == 1, done
    assert "digest" in done["unknown"]


async def test_a_key_that_will_expire_later_still_works():
    assert await plane_with(expires_at=time.time() + 60).authenticator.authenticate(call_with())


async def test_no_credential_is_refused():
    call = call_with()
    call.credential = None
    assert (await refusal(plane_with(), call)).cause == "credential-missing"


async def test_wrong_keys_are_throttled_and_lock_nobody_out():
    plane = plane_with()
    for _ in range(20):
        assert (await refusal(plane, call_with("nonsense"))).reason is Reason.UNAUTHENTICATED
    refused = await refusal(plane, call_with(new_key(PEPPER).text))
    assert (refused.reason, refused.cause) == (Reason.RATE_LIMITED, "failed-keys")
    assert 0 < refused.retry_after_s <= 60
    # A valid key from the same address, first used now, and used again.
    assert await plane.authenticator.authenticate(call_with())
    assert await plane.authenticator.authenticate(call_with())


@pytest.mark.parametrize("document", [{"revoked_at": 1.0}, {"expires_at": 1.0}, {"digest": "ab"}])
async def test_the_budget_of_wrong_keys_does_not_distinguish_them(document):
    plane = plane_with(**document)
    reasons = [(await refusal(plane, call_with())).reason for _ in range(21)]
    assert reasons == [Reason.UNAUTHENTICATED] * 20 + [Reason.RATE_LIMITED]


async def test_a_ticket_is_no_guess_of_a_key():
    plane = plane_with()
    call = call_with()
    call.credential = Credential("ticket", "tick_wrong")
    for _ in range(50):
        assert (await refusal(plane, call)).cause == "ticket-unknown"
    for _ in range(21):
        await refusal(plane, call_with("nonsense"))
    assert (await refusal(plane, call)).cause == "ticket-unknown"


async def test_what_was_proved_as_one_kind_of_credential_is_none_of_another():
    plane = plane_with()
    assert await plane.authenticator.authenticate(call_with())
    shown = call_with()
    shown.credential = Credential("ticket", KEY.text)
    assert (await refusal(plane, shown)).cause == "ticket-unknown"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://[", "https://gateway.test.evil.example"])
async def test_a_foreign_page_cannot_open_a_socket_with_a_cookie(origin):
    headers = [(b"host", b"gateway.test"), (b"cookie", b"sessionid=operators")]
    shown = Call(Protocol.WEBSOCKET, "/v1/stream", "192.0.2.7", headers=headers, origin=origin)
    assert (await refusal(plane_with(), shown)).reason is Reason.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize("origin", ["https://gateway.test", None])
async def test_a_page_of_ours_cannot_open_a_socket_with_a_cookie_either(origin):
    headers = [(b"host", b"gateway.test"), (b"cookie", b"sessionid=operators")]
    shown = Call(Protocol.WEBSOCKET, "/v1/stream", "192.0.2.7", headers=headers, origin=origin)
    assert (await refusal(plane_with(), shown)).cause == "credential-missing"


async def test_an_address_of_ipv4_that_came_as_ipv6_is_one_of_ipv4():
    call = call_with()
    call.ip = "::ffff:192.0.2.7"
    assert await plane_with(allowed_ips=["192.0.2.0/24"]).authenticator.authenticate(call)


async def test_a_key_works_only_from_its_addresses():
    inside = plane_with(allowed_ips=["192.0.2.0/24"])
    outside = plane_with(allowed_ips=[str(ip_network("198.51.100.0/24"))])
    assert await inside.authenticator.authenticate(call_with())
    assert (await refusal(outside, call_with())).reason is Reason.IP_NOT_ALLOWED


async def test_a_browser_may_use_a_key_only_from_its_origins():
    plane = plane_with(allowed_origins=["https://app.example"])
    assert await plane.authenticator.authenticate(call_with(origin="https://app.example"))
    assert await plane.authenticator.authenticate(call_with())
    for origin in ("https://evil.example", "null"):
        assert (await refusal(plane, call_with(origin=origin))).reason is Reason.ORIGIN_NOT_ALLOWED


async def test_a_call_needs_its_rights():
    assert await plane_with().authenticator.authenticate(call_with(rights=(Right(Verb.CALL, "quotes"),)))
    refused = await refusal(plane_with(), call_with(rights=(Right(Verb.CALL, "orders"),)))
    assert refused.reason is Reason.FORBIDDEN
    assert "call:orders" in refused.detail


async def test_a_signed_link_needs_no_key():
    call = call_with(is_anonymous=True)
    call.credential = None
    assert (await plane_with().authenticator.authenticate(call)).consumer == ""


@pytest.mark.parametrize(
    ("scope", "right", "covers"),
    [
        ("publish:*", "publish:a/b/c", True),
        ("publish:*", "subscribe:a", False),
        ("subscribe:sensors/*", "subscribe:sensors/d1/temperature", True),
        ("subscribe:sensors/*", "subscribe:sensors", False),
        ("publish:sensors/{id}/temperature", "publish:sensors/d1/temperature", True),
        ("publish:sensors/{id}/temperature", "publish:sensors/d1/x/temperature", False),
        ("call:quotes", "call:quotes2", False),
        ("call:a.c", "call:abc", False),
        ("*", "jobs:reports", True),
    ],
)
def test_scopes_cover_what_they_say(scope, right, covers):
    verb, name = right.split(":", 1)
    principal = Principal(consumer="c", key="k", tier="t", scopes=(scope,))
    assert allowed(principal, Right(Verb(verb), name)) is covers


@pytest.mark.parametrize(
    ("scopes", "ceiling", "right", "covers"),
    [
        (("publish:*",), None, "publish:a", True),
        (("publish:*",), ("publish:a",), "publish:a", True),
        (("publish:*",), ("publish:a",), "publish:b", False),
        (("publish:a*",), ("publish:*b",), "publish:ab", True),
        (("publish:a*",), ("publish:*b",), "publish:ac", False),
        (("*",), ("call:*",), "publish:a", False),
        (("*",), (), "call:quotes", False),
    ],
)
def test_a_right_needs_the_key_and_the_tier(scopes, ceiling, right, covers):
    verb, name = right.split(":", 1)
    principal = Principal(consumer="c", key="k", tier="t", scopes=scopes, ceiling=ceiling)
    assert allowed(principal, Right(Verb(verb), name)) is covers


@pytest.mark.parametrize(
    ("scopes", "ceiling"),
    [
        (None, None),
        (["*", "call:a"], None),
        (["jobs:*", "call:*", "publish:*", "subscribe:*"], None),
        (["call:*", "publish:*", "subscribe:*"], ("call:*", "publish:*", "subscribe:*")),
        ([], ()),
    ],
)
def test_a_tier_that_bounds_nothing_costs_nothing(scopes, ceiling):
    tier = {"name": "gold"} | ({} if scopes is None else {"scopes": scopes})
    snapshot = Snapshot.from_documents(
        {
            "tier": [tier],
            "consumer": [{"name": "acme", "tier": "gold"}],
            "key": [{"id": "k", "consumer": "acme", "digest": ""}],
        }
    )
    assert snapshot.principal("k").ceiling == ceiling


async def test_who_is_refused_learns_whether_the_key_or_its_tier_lacks_the_scope():
    plane = plane_with(scopes=["call:*"])
    plane.snapshot.apply([("tier", "gold", {"name": "gold", "scopes": ["call:quotes"]})])
    refused = await refusal(plane, call_with(rights=(Right(Verb.CALL, "orders"),)))
    assert refused.detail == "This key's tier does not allow the scope `call:orders`."


def test_no_scope_gives_no_right():
    assert not allowed(Principal(consumer="c", key="k", tier="t"), Right(Verb.CALL, "quotes"))
