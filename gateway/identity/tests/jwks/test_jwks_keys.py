import json

import pytest

from gateway.credentials.public_keys import InvalidKeySet, read
from gateway.identity.tests.jwks.support import proved, refusal, settled
from gateway.refusals import Reason
from gateway.tests.identity_provider import jwk, proving, token


async def test_a_key_that_is_published_no_more_proves_nothing_any_more(provider):
    reported = []
    async with proving(provider.document()) as plane:
        plane.snapshot.on_change(reported.append)
        text = token()
        principal = await proved(plane, text)
        provider.publish(jwk("k2"))
        plane.clock.now_s += 600
        await settled(plane)
        assert reported == [{"issuer"}]
        assert plane.snapshot.current_principal(principal) is None
        assert (await refusal(plane, text)).cause == "token-key-unknown"
        assert await proved(plane, token(kid="k2"))


async def test_another_key_under_the_same_name_is_another_key(provider):
    async with proving(provider.document()) as plane:
        text = token()
        principal = await proved(plane, text)
        provider.publish(jwk("k1", of="k2"))
        plane.clock.now_s += 600
        await settled(plane)
        assert plane.snapshot.current_principal(principal) is None
        assert (await refusal(plane, text)).cause == "token-signature"


async def test_a_set_read_again_keeps_what_was_proved(provider):
    async with proving(provider.document()) as plane:
        text = token()
        principal = await proved(plane, text)
        plane.clock.now_s += 600
        await settled(plane)
        assert provider.requests == 2
        assert await proved(plane, text) is principal


PASSED_OVER = {
    "a shared secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"},
    "a key for encryption": jwk(use="enc"),
    "a key that may not verify": jwk(key_ops=["encrypt"]),
    "a key of another algorithm": jwk(alg="RS512"),
    "a key of another kind": jwk("k1", "ES256"),
    "a short key": {**jwk(), "n": "AQAB"},
    "no modulus": {"kty": "RSA", "e": "AQAB", "kid": "k1"},
    "a modulus that is a number": {**jwk(), "n": 5},
    "an exponent of one": {**jwk(), "e": "AQ"},
    "a kid that is a number": {**jwk(), "kid": 1},
    "a name alone": {"kid": "k1"},
}


@pytest.mark.parametrize("key", PASSED_OVER.values(), ids=list(PASSED_OVER))
async def test_keys_that_must_not_be_used_are_passed_over(provider, key):
    provider.publish(key, jwk("k2"))
    async with proving(provider.document()) as plane:
        assert await proved(plane, token(kid="k2"))
        assert (await refusal(plane, token())).reason is Reason.UNAUTHENTICATED


async def test_an_elliptic_key_off_its_curve_is_passed_over(provider):
    provider.publish({**jwk("k1", "ES256"), "y": "A" * 43})
    async with proving(provider.document(algorithms=["ES256"])) as plane:
        assert (await refusal(plane, token(algorithm="ES256"))).cause == "token-signature"


def test_of_a_key_only_what_is_public_is_kept():
    (key,) = read(json.dumps({"keys": [{**jwk(), "d": "AQAB", "x5u": "http://127.0.0.1:1/"}]}).encode())
    assert set(key._members) == {"kty", "n", "e"}


@pytest.mark.parametrize("body", [b"", b"\xff", b"1", b'{"keys": 1}', b"[" * 5000])
def test_what_is_no_key_set_is_told_as_such(body):
    with pytest.raises(InvalidKeySet):
        read(body)
