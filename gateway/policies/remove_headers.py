"""``remove-headers``: headers that the upstream, or the caller, does not get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only, choice, header_name, strings
from gateway.policies.policy import Build, Policy
from gateway.wire.header_fields import Headers


def remove_headers(options: Mapping[str, Any]) -> Build:
    """Read the options: ``headers``, a list of names; ``on``: ``request`` (default) or ``response``."""
    allow_only(options, ("headers", "on"))
    if "headers" not in options:
        raise BadOption("headers", "Must be a list of header names.")
    names = frozenset(
        header_name(name, f"headers[{number}]") for number, name in enumerate(strings(options, "headers"))
    )
    is_response = choice(options, "on", ("request", "response"), "request") == "response"
    return lambda _: (RemoveResponseHeaders if is_response else RemoveRequestHeaders)(names)


class RemoveRequestHeaders(Policy):
    """Removes headers from the request, those that earlier policies added included."""

    def __init__(self, names: frozenset[bytes]) -> None:
        self._names = names

    def inbound(self, call: Call) -> None:
        """Remove the headers from the call."""
        call.headers = [header for header in call.headers if header[0] not in self._names]
        call.added_headers = tuple(header for header in call.added_headers if header[0] not in self._names)


class RemoveResponseHeaders(Policy):
    """Removes headers from the answer."""

    def __init__(self, names: frozenset[bytes]) -> None:
        self._names = names

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Return the headers without those named."""
        return [header for header in headers if header[0] not in self._names]
