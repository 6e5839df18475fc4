"""``remove-headers``: headers that the upstream is not to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.policy import Policy, only, texts


class RemoveHeaders(Policy):
    """Options: ``headers``, a list of names."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("headers",))
        self._names = frozenset(name.lower().encode() for name in texts(options, "headers"))

    def inbound(self, call: Call) -> None:
        """Remove them."""
        call.headers = [header for header in call.headers if header[0] not in self._names]
        call.added_headers = tuple(header for header in call.added_headers if header[0] not in self._names)
