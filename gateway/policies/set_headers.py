"""``set-headers``: headers that the upstream, or the caller, is to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import BadOption, Policy, checked_name, checked_value, one_of, only
from gateway.wire.header_fields import Headers


def set_headers(options: Mapping[str, Any]) -> Policy:
    """Options: ``headers``, an object of names and values; ``on``: ``request`` (left out) or ``response``."""
    only(options, ("headers", "on"))
    headers = options.get("headers")
    if not isinstance(headers, Mapping):
        raise BadOption("headers", "An object of names and values.")
    pairs = tuple(
        (checked_name(name, f"headers.{name}"), checked_value(value, f"headers.{name}"))
        for name, value in headers.items()
    )
    return (OfAnswers if one_of(options, "on", ("request", "response"), "request") == "response" else OfRequests)(pairs)


class OfRequests(Policy):
    """Each replaces what the caller sent under that name."""

    def __init__(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._headers = headers
        self._names = frozenset(name for name, _ in headers)

    def inbound(self, call: Call) -> None:
        """Set them."""
        call.headers = [header for header in call.headers if header[0] not in self._names]
        added = tuple(header for header in call.added_headers if header[0] not in self._names)
        call.added_headers = added + self._headers


class OfAnswers(Policy):
    """Each replaces what the answer has under that name."""

    def __init__(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._headers = headers
        self._names = frozenset(name for name, _ in headers)

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Set them."""
        return [*(header for header in headers if header[0] not in self._names), *self._headers]
