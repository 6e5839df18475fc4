"""Usage per second over all processes: batches cover different intervals, and are spread evenly over seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

INTERVAL_MAX_S = 10.0
"""Upper bound for the interval that a batch covers."""
LATE_S = 5.0
"""A batch that arrives later was held back while NATS was unavailable: it is in the roll-ups only."""
COMPLETE_AFTER_S = 2.25
"""Delay between the start of a second and its report: by then every process has flushed once after its end."""


class Second:
    """Sums of one second, or of one batch."""

    __slots__ = ("bytes_in", "bytes_out", "calls", "latency_ms", "messages", "timed_calls")

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.bytes_in = 0.0
        self.bytes_out = 0.0
        self.latency_ms = 0.0
        self.timed_calls = 0.0

    def add(self, tally: Mapping[str, Any]) -> None:
        """Add a tally of a batch."""
        self.calls[tally["protocol"]] += tally["calls"]
        self.messages[tally["protocol"]] += tally["messages_in"] + tally["messages_out"]
        self.bytes_in += tally["bytes_in"]
        self.bytes_out += tally["bytes_out"]
        if tally["latency_ms_sum"]:
            self.latency_ms += tally["latency_ms_sum"]
            self.timed_calls += tally["calls"]

    def take(self, other: Second, share: float) -> None:
        """Add a share of another second."""
        for mine, theirs in ((self.calls, other.calls), (self.messages, other.messages)):
            for protocol, count in theirs.items():
                mine[protocol] += count * share  # type: ignore[assignment]
        self.bytes_in += other.bytes_in * share
        self.bytes_out += other.bytes_out * share
        self.latency_ms += other.latency_ms * share
        self.timed_calls += other.timed_calls * share

    def figures(self, at: int) -> dict[str, Any]:
        """Return the sums as the pages expect them; ``at`` is the second, in Unix time."""
        return {
            "at": at,
            "calls": {protocol: round(count, 2) for protocol, count in self.calls.items()},
            "messages": {protocol: round(count, 2) for protocol, count in self.messages.items()},
            "bytes_in": round(self.bytes_in),
            "bytes_out": round(self.bytes_out),
            "latency_ms": round(self.latency_ms / self.timed_calls, 2) if self.timed_calls else None,
        }


class Seconds:
    """The seconds that are being summed; each is yielded once, when it is complete."""

    def __init__(self, began_at: float) -> None:
        self._last_complete = int(began_at) - 1
        self._summing: dict[int, Second] = {}

    def add(self, batch: Mapping[str, Any], now: float) -> None:
        """Spread a batch over the seconds that it covers; what is slightly late is added to the oldest open second."""
        ends_at = min(batch["at"], now)
        if ends_at < now - LATE_S:
            return
        whole = Second()
        for tally in batch["tallies"]:
            whole.add(tally)
        lasted_s = min(max(batch["interval_s"], 0.01), INTERVAL_MAX_S)
        began_at = ends_at - lasted_s
        for second in range(int(began_at), int(ends_at) + 1):
            share = (min(ends_at, second + 1) - max(began_at, second)) / lasted_s
            if share > 0:
                self._summing.setdefault(max(second, self._last_complete + 1), Second()).take(whole, share)

    def complete(self, now: float) -> Iterator[tuple[int, Second]]:
        """Yield the seconds that have become complete, including those without usage."""
        for second in range(self._last_complete + 1, int(now - COMPLETE_AFTER_S) + 1):
            self._last_complete = second
            yield second, self._summing.pop(second, Second())
