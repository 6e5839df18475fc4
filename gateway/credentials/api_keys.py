"""API keys and connect tickets as text: how they are made, told apart and digested, and where callers put them.

A key is ``apim_<id>_<secret><check>``: id 12 and secret 32 characters of base62, check 6 characters of base62 of the
CRC-32 of all before it, so that scanners and typing errors are caught before any look-up. At rest a key is its
HMAC-SHA-256 under the server's pepper.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

PREFIX = "apim"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 12, 32, 6
CREDENTIAL_MAX_BYTES = 8 * 1024
"""A JWT may be long; what is longer than this is no credential."""
QUERY_FIELDS_MAX = 100

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(
    rf"{PREFIX}_([0-9A-Za-z]{{{ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS}}}([0-9A-Za-z]{{{CHECK_CHARS}}})", re.ASCII
)
TICKET_PREFIX = "tick_"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as received, before it is proved."""

    kind: str
    """``key`` (an API key), ``token`` (a JWT) or ``ticket`` (a single-use connect ticket)."""
    value: str


class Malformed(ValueError):
    """The text is not a key: wrong shape, or its check characters do not fit."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. Its text is shown once and never stored."""

    id: str
    text: str
    digest: str


def new_key(pepper: bytes) -> NewKey:
    """Make a key with 190 bits of secret."""
    id_ = _random(ID_CHARS)
    body = f"{PREFIX}_{id_}_{_random(SECRET_CHARS)}"
    text = body + _check(body)
    return NewKey(id_, text, digest(text, pepper))


def parse(text: str) -> str:
    """Give a key's id. Raises :class:`Malformed` for what cannot be a key."""
    match = _KEY.fullmatch(text)
    if match is None or not hmac.compare_digest(match[2], _check(text[:-CHECK_CHARS])):
        raise Malformed("not a key")
    return match[1]


def digest(text: str, pepper: bytes) -> str:
    """Give what is kept of a key, in hexadecimal."""
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def new_ticket() -> str:
    """Make a connect ticket."""
    return TICKET_PREFIX + secrets.token_urlsafe(24)


def ticket_store_key(ticket: str) -> str:
    """Say under which Redis key a ticket lies: its hash, so that the store holds no usable ticket."""
    return "ticket:" + hashlib.sha256(ticket.encode()).hexdigest()


def from_text(text: str) -> Credential:
    """Tell a key, a ticket and a token apart by their shape alone."""
    if len(text) > CREDENTIAL_MAX_BYTES:
        raise Refused(Reason.INVALID_REQUEST, "The credential is too long.", cause="credential-malformed")
    if text.startswith(TICKET_PREFIX):
        return Credential("ticket", text)
    if not text.startswith(PREFIX + "_") and text.count(".") == 2:
        return Credential("token", text)
    return Credential("key", text)


def from_request(headers: Headers, query: bytes, subprotocols: Iterable[str] = ()) -> Credential | None:
    """Find the one credential of an HTTP request or WebSocket handshake.

    Looked for in ``Authorization``, ``X-API-Key``, the WebSocket subprotocols ``["bearer", CREDENTIAL]`` and, for a
    ticket only, ``?ticket=``. Raises Refused for two credentials, and for a key in the query string.
    """
    found: list[Credential] = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(from_text(_text(value)))
        elif name == b"authorization":
            found.append(_bearer(value))
    if subprotocols:
        found += _in_subprotocols(list(subprotocols))
    if query:
        found += _in_query(query)
    if len(found) > 1:
        raise Refused(Reason.INVALID_REQUEST, "Send one credential, not several.", cause="credential-twice")
    return found[0] if found else None


def _bearer(value: bytes) -> Credential:
    scheme, _, credential = _text(value).partition(" ")
    if scheme.lower() == "basic":
        credential = _password(credential)
        scheme = "bearer"
    if scheme.lower() != "bearer" or not credential.strip():
        raise Refused(
            Reason.UNAUTHENTICATED, "Send the key as `Authorization: Bearer KEY`.", cause="credential-malformed"
        )
    return from_text(credential.strip())


def _password(encoded: str) -> str:
    """Give the password of ``Authorization: Basic`` (RFC 7617), as clients of schema registries send their key."""
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode("ascii").partition(":")[2]
    except ValueError:
        return ""


def _text(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(Reason.UNAUTHENTICATED, cause="credential-malformed") from None


def _in_subprotocols(offered: list[str]) -> Iterable[Credential]:
    if "bearer" in offered:
        rest = offered[offered.index("bearer") + 1 :]
        if not rest:
            raise Refused(Reason.UNAUTHENTICATED, "Offer the key after `bearer`.", cause="credential-malformed")
        yield from_text(rest[0])


def _in_query(query: bytes) -> Iterable[Credential]:
    if b"ticket=" not in query and b"apim_" not in query:
        return
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise Refused(
            Reason.INVALID_REQUEST,
            f"A query string that seems to hold a credential has at most {QUERY_FIELDS_MAX} fields.",
            cause="credential-malformed",
        ) from None
    for name, value in pairs:
        if value.startswith(PREFIX + "_"):
            raise Refused(
                Reason.UNAUTHENTICATED,
                "A key never belongs in an address; send it in a header, or a connect ticket as `?ticket=`.",
                cause="key-in-query",
                headers=((b"referrer-policy", b"no-referrer"),),
            )
        if name == "ticket":
            yield Credential("ticket", value)


def without_ticket(query: bytes) -> bytes:
    """Give a query string without the ticket in it, which nobody behind the door is to see."""
    return b"&".join(
        part for part in query.split(b"&") if unquote_plus(part.partition(b"=")[0].decode("latin-1")) != "ticket"
    )


def _random(chars: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(chars))


def _check(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECK_CHARS):
        number, rest = divmod(number, 62)
        digits = _BASE62[rest] + digits
    return digits
