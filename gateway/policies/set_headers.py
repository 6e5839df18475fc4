"""``set-headers``: headers that the upstream, or the caller, gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only, choice, header_name, header_value
from gateway.policies.policy import Build, Policy
from gateway.wire.header_fields import Headers

HeaderPairs = tuple[tuple[bytes, bytes], ...]


def set_headers(options: Mapping[str, Any]) -> Build:
    """Read the options: ``headers``, an object of names and values; ``on``: ``request`` (default) or ``response``."""
    allow_only(options, ("headers", "on"))
    headers = options.get("headers")
    if not isinstance(headers, Mapping):
        raise BadOption("headers", "Must be an object of header names and values.")
    pairs = tuple(
        (header_name(name, f"headers.{name}"), header_value(value, f"headers.{name}"))
        for name, value in headers.items()
    )
    is_response = choice(options, "on", ("request", "response"), "request") == "response"
    return lambda _: (SetResponseHeaders if is_response else SetRequestHeaders)(pairs)


class SetRequestHeaders(Policy):
    """Sets headers of the request; each replaces what the caller sent under its name."""

    def __init__(self, headers: HeaderPairs) -> None:
        self._headers = headers
        self._names = frozenset(name for name, _ in headers)

    def inbound(self, call: Call) -> None:
        """Set the headers on the call."""
        call.headers = [header for header in call.headers if header[0] not in self._names]
        added = tuple(header for header in call.added_headers if header[0] not in self._names)
        call.added_headers = added + self._headers


class SetResponseHeaders(Policy):
    """Sets headers of the answer; each replaces what was there under its name."""

    def __init__(self, headers: HeaderPairs) -> None:
        self._headers = headers
        self._names = frozenset(name for name, _ in headers)

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Return the headers with those of the policy set."""
        return [*(header for header in headers if header[0] not in self._names), *self._headers]
