"""``jwt``: a route accepts only tokens, of the issuers and with the claims that it requires."""

import pytest

from gateway.call import Call
from gateway.credentials.public_keys import PublicKey
from gateway.policies import BadOption
from gateway.policies.jwt import jwt
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Consumer, Issuer, Membership, Tier
from gateway.snapshot.principal import Token, bearer

MEMBERSHIP = Membership(Consumer("acme", "free"), Tier("free"), ())


def caller(issuer="idp", **claims):
    trusted = Issuer(issuer, "https://id.example/", "https://id.example/jwks", "api")
    token = Token(trusted, PublicKey("k1", None, {"kty": "RSA"}), "RS256", claims, MEMBERSHIP)
    call = Call(Protocol.HTTP, "/", "192.0.2.1")
    call.principal = bearer(token, (), 1.0)
    return call


def refusal(options, call):
    with pytest.raises(Refused) as caught:
        jwt(options)(None).inbound(call)
    return caught.value.reason, caught.value.cause


def test_any_token_is_accepted_where_nothing_is_required():
    assert jwt({})(None).inbound(caller()) is None


def test_a_key_is_refused():
    call = caller()
    call.principal = call.principal.__class__("acme", "k1", "free")
    assert refusal({}, call) == (Reason.UNAUTHENTICATED, "token-needed")


def test_the_issuer_must_be_one_of_those_named():
    assert jwt({"issuers": ["idp", "other"]})(None).inbound(caller()) is None
    assert refusal({"issuers": ["other"]}, caller()) == (Reason.FORBIDDEN, "token-issuer-refused")


@pytest.mark.parametrize(
    ("required", "claims", "fits"),
    [
        ({"role": "admin"}, {"role": "admin"}, True),
        ({"role": "admin"}, {"role": "user"}, False),
        ({"role": "admin"}, {}, False),
        ({"role": "admin"}, {"role": None}, False),
        ({"role": "admin"}, {"role": ["user", "admin"]}, True),
        ({"role": "admin"}, {"role": {"admin": True}}, False),
        ({"role": ["admin", "owner"]}, {"role": "owner"}, True),
        ({"role": ["admin", "owner"]}, {"role": ["user"]}, False),
        ({"role": "admin", "tenant": 7}, {"role": "admin", "tenant": 7}, True),
        ({"role": "admin", "tenant": 7}, {"role": "admin", "tenant": 8}, False),
        ({"verified": True}, {"verified": True}, True),
        ({"verified": True}, {"verified": 1}, False),
        ({"level": 1}, {"level": True}, False),
        ({"level": 1}, {"level": "1"}, False),
        ({"role": "admin"}, {"role": "administrator"}, False),
    ],
)
def test_claims_must_have_the_required_values(required, claims, fits):
    if fits:
        assert jwt({"required_claims": required})(None).inbound(caller(**claims)) is None
    else:
        refused = refusal({"required_claims": required}, caller(**claims))
        assert refused == (Reason.FORBIDDEN, "token-claim-refused")


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({"issuer": "idp"}, "issuer"),
        ({"issuers": "idp"}, "issuers"),
        ({"issuers": []}, "issuers"),
        ({"issuers": [1]}, "issuers[0]"),
        ({"required_claims": ["role"]}, "required_claims"),
        ({"required_claims": {"role": None}}, "required_claims.role"),
        ({"required_claims": {"role": []}}, "required_claims.role"),
        ({"required_claims": {"role": {"a": 1}}}, "required_claims.role"),
    ],
)
def test_an_invalid_option_is_refused_by_its_path(options, at):
    with pytest.raises(BadOption) as caught:
        jwt(options)
    assert caught.value.at == at
