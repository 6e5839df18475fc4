"""Whose word a token is, whether it was given, and for whom: forgeries are refused, and nothing is fetched for them."""

import base64
import hmac
import json
import time

import jwt
import pytest

from gateway.call import Call
from gateway.credentials.api_keys import from_text
from gateway.identity import jwt_proof
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.right import Right, Verb
from gateway.tests.identity_provider import (
    AUDIENCE,
    ISS,
    claims,
    identity_provider,
    jwk,
    private_key,
    proving,
    public_pem,
    token,
)


@pytest.fixture
async def provider():
    async with identity_provider() as made:
        yield made


@pytest.fixture
async def plane(provider):
    async with proving(provider.document()) as made:
        yield made


def call_with(text, **more):
    return Call(protocol=Protocol.HTTP, address="/", ip="192.0.2.7", credential=from_text(text), **more)


async def refusal(plane, text):
    with pytest.raises(Refused) as caught:
        await plane.authenticator.authenticate(call_with(text))
    return caught.value


def part(value):
    text = value if isinstance(value, bytes | str) else json.dumps(value)
    text = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(header, payload, key=None):
    """Sign anything at all, as an issuer would that checks nothing."""
    first = f"{part(header)}.{part(payload)}"
    algorithm = jwt.get_algorithm_by_name("RS256")
    return f"{first}.{part(algorithm.sign(first.encode(), key or private_key('k1')))}"


DISABLED = {"name": "acme", "tier": "free", "is_active": False}
HEADER = {"alg": "RS256", "kid": "k1", "typ": "JWT"}


async def test_a_token_proves_the_consumer_that_its_claim_names(plane):
    expires_at = time.time() + 60
    principal = await plane.authenticator.authenticate(call_with(token("acme", exp=expires_at, role="admin")))
    assert (principal.consumer, principal.key, principal.tier) == ("acme", "jwt:idp", "free")
    assert principal.expires_at == expires_at
    assert principal.scopes == ("call:*", "subscribe:*")
    assert principal.metadata["region"] == "eu"
    assert principal.metadata["claims"]["role"] == "admin"


@pytest.mark.parametrize(
    ("algorithm", "kid"),
    [
        (name, name)
        for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
    ]
    + [("EdDSA", "ed448")],
)
async def test_every_algorithm_that_an_issuer_may_pin_works(provider, algorithm, kid):
    provider.publish(jwk(kid, algorithm))
    async with proving(provider.document(algorithms=[algorithm])) as plane:
        assert await plane.authenticator.authenticate(call_with(token(kid=kid, algorithm=algorithm)))


FORGED = {
    "no signature at all": lambda: jwt.encode(claims(), None, algorithm="none", headers={"kid": "k1"}) + "AA",
    "none, spelled differently": lambda: f"{part({**HEADER, 'alg': 'NoNe'})}.{part(claims())}.AA",
    "an empty signature": lambda: token().rpartition(".")[0] + ".",
    "HMAC with the public key": lambda: _hmac_with(public_pem()),
    "HMAC with the modulus": lambda: _hmac_with(jwk()["n"].encode()),
    "another's key": lambda: token(key=private_key("stranger")),
    "a key of its own in the header": lambda: token(key=private_key("stranger"), headers={"jwk": jwk("stranger")}),
    "an address for its key": lambda: token(headers={"jku": "http://127.0.0.1:1/jwks"}),
    "an address for its certificate": lambda: token(headers={"x5u": "http://127.0.0.1:1/pem"}),
    "a certificate of its own": lambda: token(headers={"x5c": ["MIIB"]}),
    "an unknown critical extension": lambda: signed({**HEADER, "crit": ["exp"], "exp": 1}, claims()),
    "an empty list of critical extensions": lambda: signed({**HEADER, "crit": []}, claims()),
    "an unencoded payload": lambda: signed({**HEADER, "b64": False}, claims()),
    "a kid that is a path": lambda: token(kid="../../../../dev/null", key=private_key("k1")),
    "a kid that is an absolute path": lambda: token(kid="/dev/null", key=private_key("k1")),
    "a kid with a line end": lambda: token(kid="k1\r\nx: y", key=private_key("k1")),
    "a kid that is huge": lambda: token(kid="k" * 5000, key=private_key("k1")),
    "a kid that is empty": lambda: token(kid="", key=private_key("k1")),
    "a kid that is a number": lambda: signed({**HEADER, "kid": 1}, claims()),
    "a kid that is null": lambda: signed({**HEADER, "kid": None}, claims()),
    "a kid that is an object": lambda: signed({**HEADER, "kid": {"k": "k1"}}, claims()),
    "an algorithm that is not pinned": lambda: token(algorithm="RS512"),
    "an algorithm that is a list": lambda: signed({**HEADER, "alg": ["RS256"]}, claims()),
    "no algorithm": lambda: signed({"kid": "k1"}, claims()),
    "another purpose": lambda: token(headers={"typ": "logout+jwt"}),
    "a changed payload": lambda: _with_payload(claims("bolt")),
    "another issuer": lambda: token(iss="https://evil.example/"),
    "an issuer in other letters": lambda: token(iss=ISS.upper()),
    "an issuer with more to it": lambda: token(iss=ISS + "x"),
    "an issuer that is a list": lambda: signed(HEADER, claims(iss=[ISS])),
    "no issuer": lambda: token(iss=None),
    "no expiry": lambda: token(exp=None),
    "an expiry that is a text": lambda: signed(HEADER, claims(exp=str(time.time() + 60))),
    "an expiry that is true": lambda: signed(HEADER, claims(exp=True)),
    "an expiry that never comes": lambda: signed(HEADER, claims(exp=1e300)),
    "an expiry that is infinite": lambda: signed(HEADER, json.dumps(claims(exp=1)).replace(": 1,", ": 1e999,")),
    "an expiry that is no number": lambda: signed(HEADER, json.dumps(claims(exp=1)).replace(": 1,", ": NaN,")),
    "an expiry of so many digits": lambda: signed(HEADER, json.dumps(claims(exp=1)).replace(": 1,", f": {'9' * 400},")),
    "an expiry before 1970": lambda: signed(HEADER, claims(exp=-1)),
    "an expiry that is a list": lambda: signed(HEADER, claims(exp=[time.time() + 60])),
    "a start that never comes": lambda: signed(HEADER, claims(nbf=1e300)),
    "a start before 1970": lambda: signed(HEADER, claims(nbf=-1)),
    "a start that is true": lambda: signed(HEADER, claims(nbf=True)),
    "a start that is a list": lambda: signed(HEADER, claims(nbf=[0])),
    "a start that is a text": lambda: signed(HEADER, claims(nbf="0")),
    "claims that are a list": lambda: signed(HEADER, [claims()]),
    "claims that are nested a thousand times": lambda: signed(HEADER, _nested(b'{"a":', 2000)),
    "a header that is nested": lambda: signed(_nested(b'{"alg":"RS256","kid":"k1","x":', 900), claims()),
    "claims that are no JSON": lambda: signed(HEADER, b"{'iss'}"),
    "claims that are no UTF-8": lambda: signed(HEADER, b'{"iss":"\xff"}'),
    "a header that is no JSON": lambda: signed(b"\x00", claims()),
    "segments that are no base64url": lambda: token().replace(".", "+.", 1),
    "padded segments": lambda: token() + "=",
}  # fmt: skip
"""Each is refused before or by the look at its signature, and counts as a guess."""


def _nested(begin, times):
    return begin + b"[" * times + b"]" * times + b"}"


def _hmac_with(secret):
    first = f"{part({'alg': 'HS256', 'kid': 'k1', 'typ': 'JWT'})}.{part(claims())}"
    return f"{first}.{part(hmac.digest(secret, first.encode(), 'sha256'))}"


def _with_payload(payload):
    first, _, last = token().split(".")
    return f"{first}.{part(payload)}.{last}"


@pytest.mark.parametrize("forge", FORGED.values(), ids=list(FORGED))
async def test_a_forged_token_is_refused_without_a_fetch_and_is_no_guess_of_a_key(provider, plane, forge):
    await plane.authenticator.authenticate(call_with(token()))
    requested, plane.clock.now_s = provider.requests, plane.clock.now_s + 31
    refused = await refusal(plane, forge())
    assert refused.problem() == Refused(Reason.UNAUTHENTICATED).problem()
    assert refused.cause.startswith("token-")
    assert provider.requests == requested
    assert plane.authenticator._failed_keys._failures == {}


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"exp": lambda: time.time()}, "token-expired"),
        ({"exp": lambda: time.time() - 3600}, "token-expired"),
        ({"exp": lambda: 0}, "token-expired"),
        ({"nbf": lambda: time.time() + 5}, "token-too-early"),
        ({"aud": lambda: "other"}, "token-audience"),
        ({"aud": lambda: ["other", "api2"]}, "token-audience"),
        ({"aud": lambda: None}, "token-audience"),
        ({"aud": lambda: {AUDIENCE: 1}}, "token-audience"),
        ({"cnf": lambda: {"jkt": "x"}}, "token-bound"),
        ({"sub": lambda: "nobody"}, "token-consumer-unknown"),
        ({"sub": lambda: None}, "token-consumer-unknown"),
        ({"sub": lambda: ""}, "token-consumer-unknown"),
        ({"sub": lambda: "idle"}, "token-consumer-unknown"),
    ],
)
async def test_a_signed_token_that_is_not_for_here_and_now_is_refused_and_is_no_guess(plane, given, cause):
    plane.snapshot.apply([("consumer", "idle", {"name": "idle", "tier": "free", "is_active": False})])
    refused = await refusal(plane, token(**{"nbf": None} | {name: value() for name, value in given.items()}))
    assert refused.cause == cause
    assert refused.problem() == Refused(Reason.UNAUTHENTICATED).problem()
    assert plane.authenticator._failed_keys._failures == {}


async def test_a_consumer_claim_that_is_a_number_names_nobody(provider):
    async with proving(provider.document(consumer_claim="azp")) as plane:
        for value in (1, ["acme"], {"acme": 1}, True):
            assert (await refusal(plane, token("bolt", azp=value))).cause == "token-consumer-unknown"
        assert (await plane.authenticator.authenticate(call_with(token("bolt", azp="acme")))).consumer == "acme"


async def test_an_audience_may_be_one_of_several(plane):
    assert await plane.authenticator.authenticate(call_with(token(aud=["other", AUDIENCE])))


async def test_a_clock_that_is_a_little_ahead_is_forgiven_at_the_start_alone(plane):
    assert await plane.authenticator.authenticate(call_with(token(nbf=time.time() + 0.9)))


async def test_a_token_is_bounded(plane):
    with pytest.raises(Refused) as caught:
        from_text(token(filler="x" * 9000))
    assert caught.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ({"scope": "openid call:quotes  publish:a/{b}/*"}, ("call:quotes", "publish:a/{b}/*")),
        ({"scope": ["call:quotes", 7, "call:quotes"]}, ("call:quotes",)),
        ({"scope": None, "scp": "call:quotes"}, ("call:quotes",)),
        ({"scope": None, "scp": ["jobs:*", "email"]}, ("jobs:*",)),
        ({"scope": "profile", "scp": "call:*"}, ()),
        ({"scope": None}, ("*",)),
        ({"scope": ""}, ()),
        ({"scope": {"call:*": 1}}, ()),
        ({"scope": "*"}, ("*",)),
        ({"scope": "call:" + "x" * 256}, ()),
    ],
)
async def test_the_scopes_of_a_token_are_those_of_ours_that_it_names(plane, given, scopes):
    assert (await plane.authenticator.authenticate(call_with(token(**given)))).scopes == scopes


async def test_a_token_whose_scopes_are_none_of_ours_gives_no_right(plane):
    with pytest.raises(Refused) as caught:
        await plane.authenticator.authenticate(call_with(token(scope="openid"), rights=(Right(Verb.CALL, "quotes"),)))
    assert caught.value.reason is Reason.FORBIDDEN


async def test_the_same_token_is_proved_once(plane, monkeypatch):
    text = token()
    first = await plane.authenticator.authenticate(call_with(text))
    monkeypatch.setattr(jwt_proof, "_open", None)
    assert await plane.authenticator.authenticate(call_with(text)) is first


async def test_a_token_proved_before_ends_with_its_expiry(plane, monkeypatch):
    text = token(exp=time.time() + 60)
    await plane.authenticator.authenticate(call_with(text))
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert (await refusal(plane, text)).cause == "token-expired"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda provider: ("issuer", "idp", None), "token-issuer-unknown"),
        (lambda provider: ("issuer", "idp", provider.document(audience="new")), "token-audience"),
        (lambda provider: ("issuer", "idp", provider.document(algorithms=["PS256"])), "token-algorithm"),
        (lambda provider: ("issuer", "idp", provider.document(issuer="https://new/")), "token-issuer-unknown"),
        (lambda provider: ("consumer", "acme", None), "token-consumer-unknown"),
        (lambda provider: ("consumer", "acme", DISABLED), "token-consumer-unknown"),
    ],
    ids=["issuer deleted", "audience", "algorithms", "iss", "consumer deleted", "consumer disabled"],
)  # fmt: skip
async def test_what_was_proved_before_ends_with_what_it_rests_on(provider, plane, change, cause):
    text = token()
    principal = await plane.authenticator.authenticate(call_with(text))
    plane.snapshot.apply([change(provider)])
    assert plane.snapshot.current_principal(principal) is None
    assert (await refusal(plane, text)).cause == cause


async def test_an_issuer_told_again_changes_nothing(provider, plane):
    principal = await plane.authenticator.authenticate(call_with(token()))
    plane.snapshot.apply([("issuer", "idp", provider.document())])
    assert plane.snapshot.current_principal(principal) is principal


async def test_a_changed_tier_changes_the_limits_of_a_token_proved_before(plane):
    text = token()
    before = await plane.authenticator.authenticate(call_with(text))
    limits = [{"metric": "requests", "amount": 3, "per": 1}]
    plane.snapshot.apply([("tier", "free", {"name": "free", "limits": limits})])
    after = await plane.authenticator.authenticate(call_with(text))
    assert (before.limits, [limit.amount for limit in after.limits]) == ((), [3])
    assert (after.scopes, after.expires_at) == (before.scopes, before.expires_at)
    assert await plane.authenticator.authenticate(call_with(text)) is after


async def test_a_token_names_its_key_unless_there_is_but_one(provider):
    provider.publish(jwk(None, of="k1"))
    async with proving(provider.document()) as plane:
        assert await plane.authenticator.authenticate(call_with(token(kid=None)))
    provider.publish(jwk("k1"), jwk("k2"))
    async with proving(provider.document()) as plane:
        assert (await refusal(plane, token(kid=None))).cause == "token-key-unknown"


async def test_keys_of_the_same_name_are_all_tried(provider):
    provider.publish(jwk("k1", of="k2"), jwk("k1"))
    async with proving(provider.document()) as plane:
        assert await plane.authenticator.authenticate(call_with(token()))
