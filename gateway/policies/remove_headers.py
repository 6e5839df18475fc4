"""``remove-headers``: headers that the upstream, or the caller, is not to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import BadOption, Policy, checked_name, one_of, only, texts
from gateway.wire.header_fields import Headers


def remove_headers(options: Mapping[str, Any]) -> Policy:
    """Options: ``headers``, a list of names; ``on``: ``request`` (left out) or ``response``."""
    only(options, ("headers", "on"))
    if "headers" not in options:
        raise BadOption("headers", "A list of names.")
    names = frozenset(checked_name(name, f"headers[{number}]") for number, name in enumerate(texts(options, "headers")))
    return (OfAnswers if one_of(options, "on", ("request", "response"), "request") == "response" else OfRequests)(names)


class OfRequests(Policy):
    """Takes them out of the request."""

    def __init__(self, names: frozenset[bytes]) -> None:
        self._names = names

    def inbound(self, call: Call) -> None:
        """Remove them."""
        call.headers = [header for header in call.headers if header[0] not in self._names]
        call.added_headers = tuple(header for header in call.added_headers if header[0] not in self._names)


class OfAnswers(Policy):
    """Takes them out of the answer."""

    def __init__(self, names: frozenset[bytes]) -> None:
        self._names = names

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Remove them."""
        return [header for header in headers if header[0] not in self._names]
