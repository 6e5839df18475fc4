"""What a header field may be named and hold (RFC 9110 5), and which of them are the gateway's own."""

import re

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
OF_THE_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-consumer-key", "x-consumer-name", "x-consumer-tier",
    }
)  # fmt: skip
"""Headers by which messages are framed and callers named: no policy sets or removes them."""
