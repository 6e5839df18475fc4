"""``set-headers``: headers that the upstream is to see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import Policy, only

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

OF_THE_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-consumer-key", "x-consumer-name", "x-consumer-tier",
    }
)  # fmt: skip


class SetHeaders(Policy):
    """Options: ``headers``, an object of names and values; each replaces what the caller sent under that name."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("headers",))
        headers = options.get("headers")
        if not isinstance(headers, Mapping):
            raise ValueError("headers is an object.")
        for name, value in headers.items():
            if not NAME.fullmatch(name) or not isinstance(value, str) or not VALUE.fullmatch(value):
                raise ValueError(f"`{name}` is no header, or its value is none.")
            if name.lower() in OF_THE_CONNECTION:
                raise ValueError(f"`{name}` is the gateway's own to set.")
        self._headers = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items())
        self._names = frozenset(name for name, _ in self._headers)

    def inbound(self, call: Call) -> None:
        """Set them."""
        call.headers = [header for header in call.headers if header[0] not in self._names]
        added = tuple(header for header in call.added_headers if header[0] not in self._names)
        call.added_headers = added + self._headers
