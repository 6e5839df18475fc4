"""The opening handshake of a WebSocket (RFC 6455 4.2): judged by its head, answered as bytes."""

from __future__ import annotations

import base64
import binascii
from email.utils import formatdate
from http import HTTPStatus

from gateway.protocols.exchange import WITHOUT_BODY
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import Headers, lines_of
from gateway.wire.websocket import accept_of

VERSION, KEY = b"sec-websocket-version", b"sec-websocket-key"
SUPPORTED = ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"), (b"connection", b"upgrade, close"))
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


def accept_key(headers: Headers) -> bytes:
    """Return what proves to the client that its handshake was read. Raises Refused."""
    keys = [value.strip() for name, value in headers if name == KEY]
    if len(keys) != 1:
        raise _malformed(f"{'multiple values in' if keys else 'missing'} Sec-WebSocket-Key header")
    (key,) = keys
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if not is_key:
        raise _malformed("invalid Sec-WebSocket-Key header")
    if [value.strip() for name, value in headers if name == VERSION] != [b"13"]:
        raise Refused(
            Reason.UPGRADE_REQUIRED,
            "Failed to open a WebSocket connection: invalid Sec-WebSocket-Version header.",
            headers=SUPPORTED,
        )
    return accept_of(key)


def subprotocols_of(headers: Headers) -> list[str]:
    """Return the subprotocols that the client offers, in its order."""
    return [
        token.strip()
        for name, value in headers
        if name == b"sec-websocket-protocol"
        for token in value.decode("latin-1").split(",")
    ]


def switching(accept: bytes, headers: Headers, subprotocol: str | None) -> bytes:
    """Return the head of the ``101``."""
    chosen = b"sec-websocket-protocol: %b\r\n" % subprotocol.encode("latin-1") if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n%b%b\r\n" % (accept, lines_of(headers), chosen)
    )


def refusal(status: int, headers: Headers, body: bytes) -> bytes:
    """Return an answer that ends the connection."""
    names = {name.lower() for name, _ in headers}
    if status in WITHOUT_BODY:
        headers = [header for header in headers if header[0].lower() != b"content-length"]
    elif b"content-length" not in names:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    if b"date" not in names:
        headers = [*headers, (b"date", formatdate(usegmt=True).encode())]
    if b"connection" not in names:
        headers = [*headers, (b"connection", b"close")]
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, _PHRASES.get(status, b""), lines_of(headers), body)


def _malformed(what: str) -> Refused:
    return Refused(Reason.INVALID_REQUEST, f"Failed to open a WebSocket connection: {what}.")
