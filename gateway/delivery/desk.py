"""The desk: the engines that the delivery workers and the lag watch share, and the state changes that they report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from gateway.config import Config
from gateway.delivery.client import WebhookClient
from gateway.durable.attempts import Attempts
from gateway.durable.readers import Readers
from gateway.durable.withheld import Withheld
from gateway.limiter import Limiter
from gateway.log.event_log import EventLog
from gateway.metering.usage import Usage
from gateway.refusals import Refused
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.subscriptions import State, Subscription, Why

FAULTS = (Refused, LookupError, NatsError, APIError, TimeoutError, OSError)
"""What an unavailable engine may raise in this process."""
NOTE_MAX_CHARS = 300

Report = dict[str, Any]


class StateReports:
    """State changes that the control plane has not confirmed yet; of one subscription, the newest replaces others."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._pending: dict[str, Report] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def __iter__(self) -> Iterator[Report]:
        return iter(list(self._pending.values()))

    def add(self, subscription: Subscription, state: State, reason: Why | str, note: str) -> None:
        """Queue a state change; it is sent until the control plane confirms it."""
        self._pending[subscription.id] = {
            "id": subscription.id,
            "state": state.value,
            "reason": str(reason),
            "note": note[:NOTE_MAX_CHARS],
        }
        self._notify()

    def confirm(self, report: Report) -> None:
        """Remove a report, unless a newer one has replaced it."""
        if self._pending.get(report["id"]) is report:
            del self._pending[report["id"]]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a delivery process works with."""

    config: Config
    nats: Client
    js: JetStreamContext
    snapshot: Snapshot
    limiter: Limiter
    usage: Usage
    log: EventLog
    readers: Readers
    attempts: Attempts
    withheld: Withheld
    client: WebhookClient
    reports: StateReports
