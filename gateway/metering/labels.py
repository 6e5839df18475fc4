"""Labels of usage: short, and few however many names callers invent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.snapshot.endpoints import CHANNEL_EVENTS, ENDPOINTS, REGISTRY

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.protocol import Protocol
    from gateway.snapshot.picture import Snapshot

TEXT_MAX_BYTES = 255
"""The longest text of a label, in bytes of UTF-8."""
UNKNOWN = "(unknown)"
"""The target of refused calls to names that do not exist, and of all that callers without a principal name."""

Label = tuple["Protocol", str, str, str, str, str, str]
"""Protocol, consumer, key, tier, target, outcome, error class."""

_OWN = frozenset({"mqtt", *(endpoint.path for endpoint in (*ENDPOINTS, *REGISTRY, *CHANNEL_EVENTS))})
"""The targets that are the gateway's own endpoints."""
JOB_TYPES_MAX = 1_000


def bounded(text: str, most_bytes: int = TEXT_MAX_BYTES) -> str:
    """Cut a text to ``most_bytes`` of UTF-8, between characters; what UTF-8 cannot encode becomes ``?``."""
    if len(text) <= most_bytes and text.isascii():
        return text
    return text[:most_bytes].encode(errors="replace")[:most_bytes].decode(errors="ignore")


class Labels:
    """Labels calls by names that exist."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._job_types: set[str] = set()
        """Job types of which a job was created: the snapshot has no list of them."""

    def of(self, call: Call, outcome: str, error_class: str, *, is_refused: bool) -> Label:
        """Return the label of a call.

        Refused calls and those without a principal are labelled only with names that exist, so that a flood of
        invented names shares one label.
        """
        if outcome != "ok":
            outcome = bounded(outcome)
        caller = call.principal
        if caller is None or not caller.consumer:
            return (call.protocol, "", "", "", self._known_target(call), outcome, error_class)
        if is_refused:
            target = self._known_target(call)
        else:
            target = call.target
            if len(target) > TEXT_MAX_BYTES or not target.isascii():
                target = bounded(target)
            if call.handler == "job.submit" and len(self._job_types) < JOB_TYPES_MAX:
                self._job_types.add(target)
        return (call.protocol, caller.consumer, caller.key, caller.tier, target, outcome, error_class)

    def _known_target(self, call: Call) -> str:
        """Return the target of a call if it exists: a route, an endpoint, the channel of an address, a job type."""
        target = call.target
        if target in _OWN or (call.route is not None and target == call.route.name):
            return bounded(target)
        if target in self._job_types:
            return target
        channel = self._snapshot.channel(target) if 0 < len(target) <= TEXT_MAX_BYTES else None
        return bounded(channel[0].address) if channel is not None else UNKNOWN
