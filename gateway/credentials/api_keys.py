"""API keys and connect tickets as text: creating, recognizing and hashing them, and finding them in a request.

A key is ``apim_<id>_<secret><check>``: 12 characters of id and 32 of secret in base62, and the CRC-32 of everything
before it as 6 characters of base62, so that random guesses and typing errors are refused without a lookup. Only the
HMAC-SHA-256 of a key under the server's pepper is stored.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers

PREFIX = "apim"
_KEY_START = PREFIX + "_"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 12, 32, 6
CREDENTIAL_MAX_BYTES = 8 * 1024
"""Longest accepted credential; a JWT may be long."""
QUERY_FIELDS_MAX = 100

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(
    rf"{PREFIX}_([0-9A-Za-z]{{{ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS}}}([0-9A-Za-z]{{{CHECK_CHARS}}})", re.ASCII
)
TICKET_PREFIX = "tick_"
RESUMABLE_PREFIX = "tickr_"


class Credential(NamedTuple):
    """A credential as received, before it is proved."""

    kind: str
    """``key`` (API key), ``token`` (JWT) or ``ticket`` (connect ticket)."""
    value: str


class MalformedKey(ValueError):
    """The text is not a key: its format or its check characters are wrong."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A newly created key. Its text is shown once and never stored."""

    id: str
    text: str
    digest: str


def new_key(pepper: bytes) -> NewKey:
    """Create a key with 190 bits of secret."""
    id_ = _random(ID_CHARS)
    body = f"{PREFIX}_{id_}_{_random(SECRET_CHARS)}"
    text = body + _check(body)
    return NewKey(id_, text, digest(text, pepper))


def parse(text: str) -> str:
    """Return the id of a key. Raises MalformedKey if the text cannot be a key."""
    match = _KEY.fullmatch(text)
    if match is None or not hmac.compare_digest(match[2], _check(text[:-CHECK_CHARS])):
        raise MalformedKey("not a key")
    return match[1]


def digest(text: str, pepper: bytes) -> str:
    """Return the digest under which a key is stored, in hexadecimal."""
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def new_ticket(*, resumable: bool = False) -> str:
    """Create a connect ticket with 192 bits of entropy."""
    return (RESUMABLE_PREFIX if resumable else TICKET_PREFIX) + secrets.token_urlsafe(24)


def is_resumable(ticket: str) -> bool:
    """Return whether a ticket opens one stream and its resumptions, instead of one connection."""
    return ticket.startswith(RESUMABLE_PREFIX)


def ticket_store_key(ticket: str) -> str:
    """Return the Redis key of a ticket: its hash, so that the store contains no usable ticket."""
    return "ticket:" + hashlib.sha256(ticket.encode()).hexdigest()


def from_text(text: str) -> Credential:
    """Return a text as a credential of the kind that its format indicates. Raises Refused if it is too long."""
    if len(text) > CREDENTIAL_MAX_BYTES:
        raise Refused(
            Reason.INVALID_REQUEST,
            f"A credential has at most {CREDENTIAL_MAX_BYTES} bytes.",
            cause="credential-malformed",
        )
    if text.startswith((TICKET_PREFIX, RESUMABLE_PREFIX)):
        return Credential("ticket", text)
    if not text.startswith(_KEY_START) and text.count(".") == 2:
        return Credential("token", text)
    return Credential("key", text)


def from_request(
    headers: Headers, query: bytes, subprotocols: Iterable[str] = (), *, is_authorization_foreign: bool = False
) -> Credential | None:
    """Return the credential of an HTTP request or WebSocket handshake, or None if it has none.

    Searches ``Authorization``, ``X-API-Key``, the WebSocket subprotocols ``["bearer", CREDENTIAL]`` and, for a
    ticket only, ``?ticket=``. With ``is_authorization_foreign``, ``Authorization`` is none of the gateway's
    where there is another credential. Raises Refused for more than one credential, and for a key in the query string.
    """
    credentials: list[Credential] = []
    authorizations: list[bytes] = []
    for name, value in headers:
        if name == b"x-api-key":
            credentials.append(from_text(_text(value)))
        elif name == b"authorization":
            authorizations.append(value)
    if subprotocols:
        credentials += _in_subprotocols(list(subprotocols))
    if query:
        credentials += _in_query(query)
    if authorizations and not (is_authorization_foreign and credentials):
        credentials += map(_bearer, authorizations)
    if len(credentials) > 1:
        raise Refused(
            Reason.INVALID_REQUEST, "The request has more than one credential. Send only one.", cause="credential-twice"
        )
    return credentials[0] if credentials else None


def holds_credential(authorization: bytes, proved: Credential) -> bool:
    """Return whether a value of ``Authorization`` holds the proved credential, or looks like any key or ticket."""
    text = authorization.decode("latin-1")
    scheme, _, encoded = text.partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            text += base64.b64decode(encoded.strip() + "==").decode("latin-1")
    return proved.value in text or TICKET_PREFIX in text or f"{PREFIX}_" in text


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
    """Return the password of ``Authorization: Basic`` (RFC 7617), in which registry clients send their key."""
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
            raise Refused(
                Reason.UNAUTHENTICATED,
                "The subprotocol `bearer` must be followed by the key.",
                cause="credential-malformed",
            )
        yield from_text(rest[0])


def may_hold_credential(query: bytes) -> bool:
    """Return whether a query string has to be searched for a ticket, and for a key that must not be there."""
    return b"ticket=" in query or b"apim_" in query


def _in_query(query: bytes) -> Iterable[Credential]:
    if not may_hold_credential(query):
        return
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise Refused(
            Reason.INVALID_REQUEST,
            f"A query string that contains a credential may have at most {QUERY_FIELDS_MAX} fields.",
            cause="credential-malformed",
        ) from None
    for name, value in pairs:
        if value.startswith(_KEY_START):
            raise Refused(
                Reason.UNAUTHENTICATED,
                "A key must not be sent in a URL. Send it in a header, or send a connect ticket as `?ticket=`.",
                cause="key-in-query",
                headers=((b"referrer-policy", b"no-referrer"),),
            )
        if name == "ticket":
            yield Credential("ticket", value)


def without_ticket(query: bytes) -> bytes:
    """Return a query string without its ticket, which must not reach the upstream."""
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
