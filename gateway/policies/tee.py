"""``tee``: an upstream's stream of events is published to a channel while it is sent to the caller.

A client that lost its connection (to an AI answer, an MCP call) resumes at ``/v1/events`` from the last id that it
received, and others may watch. For them the upstream is read to its end, for a limited time, after the caller has
disconnected.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only
from gateway.policies.policy import Build, Dependencies, OutgoingAnswer, Policy
from gateway.policies.tee_exchange import TeeChannel, TeeExchange
from gateway.wire.subjects import AddressError, subject_of

OPTIONS = ("channel", "linger_s")
LINGER_S, LINGER_MAX_S = 60.0, 3600.0
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def tee(options: Mapping[str, Any]) -> Build:
    """Read the options: ``channel``, an address with ``{call}``, ``{consumer}`` and path parameters; ``linger_s``."""
    allow_only(options, OPTIONS)
    template = _address(options.get("channel"))
    linger_s = _seconds(options.get("linger_s", LINGER_S))
    return lambda dependencies: Tee(template, linger_s, dependencies)


class Tee(Policy):
    """Publishes the events of answers to a channel."""

    def __init__(self, template: str, linger_s: float, dependencies: Dependencies) -> None:
        self._template = template
        self._linger_s = linger_s
        self._channel = TeeChannel(dependencies)

    async def admit(self, call: Call) -> OutgoingAnswer | None:
        """Wrap the exchange, so that the answer is published while it is sent."""
        values = {**call.parameters, "call": secrets.token_hex(12), "consumer": call.caller.consumer}
        address = _PLACEHOLDER.sub(lambda match: values.get(match[1], ""), self._template)
        call.peer = TeeExchange(call, call.peer, self._channel, address, self._linger_s)
        call.at_end = call.peer.finish
        return None


def _address(value: Any) -> str:
    """Return the template of an address. Raises BadOption."""
    if not isinstance(value, str):
        raise BadOption("channel", "Must be the address of a channel; it may contain `{call}`.")
    try:
        subject_of(_PLACEHOLDER.sub("x", value))
    except AddressError as error:
        raise BadOption("channel", f"{error}.") from None
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LINGER_MAX_S:
        raise BadOption("linger_s", f"Must be a number from 0 to {LINGER_MAX_S:g}.")
    return float(value)
