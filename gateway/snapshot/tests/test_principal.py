from gateway.credentials.public_keys import PublicKey
from gateway.snapshot.documents import Consumer, Issuer, Membership, Tier
from gateway.snapshot.principal import Principal, Token, bearer

ISSUER = Issuer("idp", "https://id.example/", "https://id.example/jwks.json", "api")
MEMBERSHIP = Membership(Consumer("acme", "free"), Tier("free"), ())


def token(claims, *scopes, issuer=ISSUER):
    return bearer(Token(issuer, PublicKey("k", None, {"kty": "RSA"}), "RS256", claims, MEMBERSHIP), scopes, None)


def test_the_maker_of_a_key_is_the_key():
    assert Principal("acme", "k1", "free").maker == "k1"


def test_a_renewed_token_is_the_same_maker_and_one_of_other_scopes_is_not():
    first = token({"sub": "ann", "exp": 1}, "jobs:a", "jobs:b").maker
    assert first == token({"sub": "ann", "exp": 2}, "jobs:b", "jobs:a").maker
    others = [
        token({"sub": "ann"}).maker,
        token({"sub": "bob"}, "jobs:a", "jobs:b").maker,
        token({"exp": 1}, "jobs:a", "jobs:b").maker,
        token({"exp": 2}, "jobs:a", "jobs:b").maker,
        "jwt:idp",
    ]
    assert len({first, *others}) == 6


def test_a_claim_with_any_json_value_has_a_maker():
    assert token({"n": 2**70, "t": "\ud800", "l": [1, {"a": None}]}).maker
