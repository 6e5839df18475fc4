"""docs/identity.md says what the code does."""

import re
from pathlib import Path

import pytest

from gateway.authenticate import PROOFS_KEPT
from gateway.config import Config
from gateway.credentials import public_keys
from gateway.credentials.api_keys import CREDENTIAL_MAX_BYTES
from gateway.identity import failed_keys, jwks, jwt_proof

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "identity.md").read_text()
DEFAULTS = {name: field.default for name, field in Config.__dataclass_fields__.items()}


@pytest.mark.parametrize(
    ("value", "documented"),
    [
        (CREDENTIAL_MAX_BYTES, {8 * 1024: "A credential is at most 8 KiB"}),
        (DEFAULTS["ticket_s"], {30: '"expires_in_s": 30'}),
        (DEFAULTS["jwks_refresh_s"], {600: "every 10 minutes"}),
        (DEFAULTS["jwks_max_bytes"], {256 * 1024: "At most 256 KiB"}),
        (DEFAULTS["jwks_timeout_s"], {5: "100 keys and 5 s"}),
        (DEFAULTS["jwks_wait_s"], {3: "wait at most 3 s"}),
        (DEFAULTS["jwks_max_age_s"], {86_400: "for 24 hours"}),
        (DEFAULTS["failed_keys_per_minute"], {20: "20 wrong keys within a minute"}),
        (failed_keys.ADDRESSES_KEPT, {10_000: "for at most 10,000 addresses"}),
        (jwks.FLOOR_S, {30: "at most once in 30 s for an issuer in each process"}),
        (public_keys.KEYS_MAX, {100: "100 keys and"}),
        (public_keys.RSA_BITS, {range(2048, 8193): "2,048 or above 8,192 bits"}),
        (jwt_proof.LEEWAY_S, {1: "within 1 s"}),
        (jwt_proof.KID_MAX_CHARS, {256: "at most 256 characters"}),
        (PROOFS_KEPT, {10_000: "at most 10,000 credentials a process"}),
    ],
)
def test_every_bound_is_the_code_s(value, documented):
    assert documented[value] in " ".join(PAGE.split())


def test_every_cause_that_a_token_is_refused_for_is_told():
    code = Path(jwt_proof.__file__).read_text() + Path(jwks.__file__).read_text()
    table = PAGE[PAGE.index("| part | requirement") : PAGE.index("All of these are 401")]
    assert set(re.findall(r'cause="(token-[a-z-]+)"', code)) == set(re.findall(r"`(token-[a-z-]+)`", table))


def test_every_header_member_that_is_refused_is_told():
    for member in jwt_proof._FOREIGN:
        assert f"`{member}`" in PAGE
