"""Names and values of header fields (RFC 9110 5), and the fields that only the gateway sets."""

import re

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
OF_THE_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-consumer-key", "x-consumer-name", "x-consumer-tier",
    }
)  # fmt: skip
"""Headers that frame messages or identify the caller: no policy may set or remove them."""


Headers = list[tuple[bytes, bytes]]


def has_body(headers: Headers) -> bool:
    """Return whether a request with these headers has a body (RFC 9112 6)."""
    for name, value in headers:  # noqa: SIM110 - on the path of every request; a generator costs three times as much
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False
