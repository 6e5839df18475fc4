"""Names and values of header fields (RFC 9110 5), and the fields that only the gateway sets."""

import re
from collections.abc import Iterable

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
OF_THE_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-consumer-key", "x-consumer-name", "x-consumer-tier",
    }
)  # fmt: skip
"""Headers that frame messages or identify the caller: no policy may set or remove them."""
OVERRIDES = frozenset(
    {
        "x-http-method", "x-http-method-override", "x-method-override", "x-original-method",
        "x-original-path", "x-original-uri", "x-original-url", "x-override-url", "x-proxy-url", "x-rewrite-url",
        "x-envoy-original-path", "x-host", "x-http-host-override", "x-original-host",
    }
)  # fmt: skip
"""Headers by which some servers serve another method, URL or host than the request's, past the rights and policies of
its route. They are dropped unless the route names them in ``override_headers``."""


Headers = list[tuple[bytes, bytes]]


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as the lines of a head, without the blank line that ends it (RFC 9112 5)."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def has_body(headers: Headers) -> bool:
    """Return whether a request with these headers has a body (RFC 9112 6)."""
    for name, value in headers:  # noqa: SIM110 - on the path of every request; a generator costs three times as much
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False
