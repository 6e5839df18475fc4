"""The interface of every policy: hooks for a call on its way in, for its answer and for its messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from gateway.call import Call
from gateway.refusals import Refused
from gateway.wire.header_fields import Headers

if TYPE_CHECKING:
    from gateway.channels.publisher import Publisher
    from gateway.config import Config
    from gateway.hooks.functions import HookFunctions
    from gateway.limiter import Limiter
    from gateway.limits.tallies import LimitUsage
    from gateway.log.event_log import EventLog
    from gateway.side_thread import SideThreads
    from gateway.snapshot.picture import Snapshot


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The parts of the data plane that policies use."""

    config: Config
    snapshot: Snapshot
    limiter: Limiter
    tallies: LimitUsage
    hooks: HookFunctions
    log: EventLog
    publisher: Publisher
    side_threads: SideThreads


class Wants(Enum):
    """How much of an answer a policy has to see."""

    NOTHING = 0
    HEAD = 1
    WHOLE = 2


@dataclass(slots=True)
class OutgoingAnswer:
    """An answer on its way to the caller. ``body`` is None where the policy did not ask for it."""

    status: int
    headers: Headers
    body: bytes | None = None


class Policy:
    """A policy that does nothing. Subclasses override what they need; methods left alone cost the route nothing."""

    type = ""
    is_shadow = False
    """Changes and refuses nothing: the policy runs on a copy, and what it would have done is reported."""
    is_of_caller = False
    """``inbound`` depends on the caller and its address alone and changes nothing: it decides for later calls."""
    reads_answers = False
    """Reads the bodies of answers, so upstreams are asked for complete answers without a content encoding."""

    def inbound(self, call: Call) -> None:
        """Check or change the call before it is handled. Raises Refused."""

    async def admit(self, call: Call) -> OutgoingAnswer | None:
        """Do as :meth:`inbound` where that must wait for the body or a hook; an answer returned ends the call."""
        return None

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Return the headers to send; called for refusals too."""
        return headers

    def wants(self, call: Call, status: int, headers: Headers) -> Wants:
        """Return how much of this answer :meth:`answer` has to see."""
        return Wants.NOTHING

    async def answer(self, call: Call, answer: OutgoingAnswer) -> None:
        """Check an answer of the handler, or change it in place. Raises Refused."""

    async def message_in(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Return a message of the caller as it is to be passed on, None to drop it. Raises Refused."""
        return message

    async def message_out(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Return a message to the caller as it is to be passed on, None to drop it. Raises Refused."""
        return message

    def has(self, method: str) -> bool:
        """Return whether the policy does anything in the method of that name."""
        return getattr(type(self), method) is not getattr(Policy, method)


Build = Callable[[Dependencies], Policy]
"""Builds a policy whose options were checked."""


class UnusablePolicy(Policy):
    """Stands in for a policy that could not be built: refuses every call, as the policy might have."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused

    def inbound(self, call: Call) -> None:
        """Raise the refusal."""
        raise self._refused
