"""Authenticate: prove who makes a call and that it may be made, before a ``101`` or a CONNACK is sent."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from hashlib import blake2b

from gateway.call import Call
from gateway.concurrency.room import make_room
from gateway.config import Config
from gateway.credentials.api_keys import Credential, MalformedKey, digest, is_resumable, parse
from gateway.identity.failed_keys import FailedKeys
from gateway.identity.jwks import KeySets
from gateway.identity.jwt_proof import prove
from gateway.identity.places import is_foreign, require_place
from gateway.identity.rights import forbidden, lacking
from gateway.identity.tickets import Tickets
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Key
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal

ANONYMOUS = Principal(consumer="", key="", tier="")
"""The principal of a caller that follows a signed link: it has no right but that link."""
PROOFS_KEPT = 10_000

_UNKNOWN_DIGEST = "0" * 64
_WRONG_KEY = frozenset({"key-malformed", "key-unknown", "key-revoked", "key-expired"})
"""Causes that count as guessing. Tickets and tokens are none: one is random and used once, the other is signed."""


class Authenticator:
    """Proves credentials against the snapshot, and remembers those already proved.

    A proof is kept by a keyed hash of the credential and holds while the snapshot has that very object, so revoking a
    key or changing an issuer ends it at once. At most ``PROOFS_KEPT`` proofs are kept.
    """

    def __init__(self, config: Config, snapshot: Snapshot, key_sets: KeySets, tickets: Tickets) -> None:
        self._pepper = config.key_pepper
        self._snapshot = snapshot
        self._key_sets = key_sets
        self._tickets = tickets
        self._failed_keys = FailedKeys(config.failed_keys_per_minute)
        self._hash_key = secrets.token_bytes(32)
        self._proofs: dict[bytes, Key | Principal] = {}

    async def authenticate(self, call: Call) -> Principal:
        """Prove the caller and its rights to this call. Raises Refused.

        Unknown, malformed, revoked and expired credentials look the same from outside; the refusal's cause tells them
        apart.
        """
        if call.is_anonymous:
            return ANONYMOUS
        if call.credential is None:
            raise _missing(call)
        proof_id = self.proof_id(call.credential)
        principal = self.proved(proof_id) or await self._prove_first(call, call.credential, proof_id)
        if principal.token is None and (key := self._snapshot.key(principal.key)) is not None:
            require_place(key, call.ip, call.origin)
        # From here on a refusal is charged to the caller, not to its address.
        call.principal = principal
        lacks = lacking(principal, call.rights, call.headers)
        if lacks is not None:
            raise forbidden(principal, lacks)
        if call.credential.kind == "ticket" and is_resumable(call.credential.value):
            call.ticket = await self._tickets.take(call.credential.value, principal, _stream_of(call))
        return principal

    def proof_id(self, credential: Credential) -> bytes:
        """Return what the proof of a credential is kept by: a keyed hash."""
        shown = f"{credential.kind} {credential.value}"
        return blake2b(shown.encode(), digest_size=16, key=self._hash_key).digest()

    def proved(self, proof_id: bytes) -> Principal | None:
        """Return the principal of a credential proved before, or None if no proof of it holds. Raises Refused."""
        proof = self._proofs.get(proof_id)
        if isinstance(proof, Key):
            return self._principal_of(_usable(proof)) if self._snapshot.key(proof.id) is proof else None
        if proof is None:
            return None
        principal = self._snapshot.current_principal(proof)
        if principal is None:
            return None
        self._proofs[proof_id] = principal
        return _unexpired(principal)

    async def _prove_first(self, call: Call, credential: Credential, proof_id: bytes) -> Principal:
        """Prove a credential that this process has no proof of. A wrong key is charged to the caller's address.

        The look-up comes first and is cheap, so that no address is locked out by what others send from it.
        """
        try:
            principal, proof = await self._prove(credential)
        except Refused as refused:
            if credential.kind == "key" and refused.cause in _WRONG_KEY:
                raise self._failed_keys.charged(call.ip, refused) from None
            raise
        if proof is not None:
            make_room(self._proofs, PROOFS_KEPT)
            self._proofs[proof_id] = proof
        return principal

    async def _prove(self, credential: Credential) -> tuple[Principal, Key | Principal | None]:
        """Return the principal that a credential proves, and what may be kept as its proof. Raises Refused."""
        if credential.kind == "ticket":
            return _unexpired(await self._tickets.redeem(credential.value)), None
        if credential.kind == "token":
            principal = await prove(self._snapshot, self._key_sets, credential.value)
            return principal, principal
        key = self._key(credential.value)
        return self._principal_of(key), key

    def _key(self, text: str) -> Key:
        """Return the key whose secret the text holds. Raises Refused ``unauthenticated``."""
        try:
            key_id = parse(text)
        except MalformedKey:
            raise Refused(Reason.UNAUTHENTICATED, cause="key-malformed") from None
        key = self._snapshot.key(key_id)
        shown = digest(text, self._pepper)
        # An unknown key is compared too, so that it takes as long as a known one.
        is_proved = hmac.compare_digest(shown, key.digest if key is not None else _UNKNOWN_DIGEST)
        if key is None or not is_proved:
            raise Refused(Reason.UNAUTHENTICATED, cause="key-unknown")
        return _usable(key)

    def _principal_of(self, key: Key) -> Principal:
        principal = self._snapshot.principal(key.id)
        if principal is None:
            raise Refused(Reason.UNAUTHENTICATED, cause="consumer-disabled")
        return principal


def _stream_of(call: Call) -> str:
    """Return a hash of what a resumable ticket is bound to: the stream's URL but for the position, and its page."""
    query = b"&".join(part for part in call.query.split(b"&") if not part.startswith(b"last_event_id="))
    stream = f"{call.protocol} {call.address} {call.origin} ".encode() + query
    return hashlib.sha256(stream).hexdigest()


def _missing(call: Call) -> Refused:
    """Return the refusal of a call without a credential; a foreign page that relies on a cookie is named as such."""
    is_socket_with_cookie = call.protocol is Protocol.WEBSOCKET and call.header(b"cookie") is not None
    if is_socket_with_cookie and is_foreign(call.origin, call.header(b"host") or ""):
        return Refused(
            Reason.ORIGIN_NOT_ALLOWED,
            "No credential was sent; a cookie does not open a WebSocket.",
            cause="origin-foreign",
        )
    return Refused(Reason.UNAUTHENTICATED, cause="credential-missing")


def _usable(key: Key) -> Key:
    if key.revoked_at is not None:
        raise Refused(Reason.UNAUTHENTICATED, cause="key-revoked")
    if key.expires_at is not None and key.expires_at <= time.time():
        raise Refused(Reason.UNAUTHENTICATED, cause="key-expired")
    return key


def _unexpired(principal: Principal) -> Principal:
    if principal.expires_at is not None and principal.expires_at <= time.time():
        raise Refused(Reason.UNAUTHENTICATED, cause="key-expired" if principal.token is None else "token-expired")
    return principal
