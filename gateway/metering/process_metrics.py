"""What one process has done since it started, for Prometheus. Its labels are closed lists: no consumer, no address."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.protocol import Protocol
from gateway.refusals import Reason

COUNTED = ("calls", "messages_in", "messages_out", "bytes_in", "bytes_out", "throttled")
HELP = {
    "calls": "Calls and connections that ended, and messages refused inside a connection.",
    "messages_in": "Messages received from callers.",
    "messages_out": "Messages sent to callers.",
    "bytes_in": "Bytes of bodies and messages received from callers.",
    "bytes_out": "Bytes of bodies and messages sent to callers.",
    "throttled": "Calls and messages that a limit delayed or refused.",
}
BOUNDS_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000)
OUTCOMES_MAX = 200
"""Outcomes are reasons and causes, which are closed lists; this bound holds even if one of them were not."""
OTHER = "other"


class Latencies(Collector):
    """A histogram that costs a fraction of a microsecond a call."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._sums_ms: dict[str, float] = {}

    def observe(self, protocol: str, latency_ms: float) -> None:
        """Count a call."""
        counts = self._counts.get(protocol)
        if counts is None:
            counts = self._counts[protocol] = [0] * (len(BOUNDS_MS) + 1)
            self._sums_ms[protocol] = 0.0
        counts[bisect_left(BOUNDS_MS, latency_ms)] += 1
        self._sums_ms[protocol] += latency_ms

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram, cumulative as Prometheus expects it."""
        family = HistogramMetricFamily(
            "apimgmt_call_duration_seconds",
            "Time from the request's head to the end of its answer; long-lived connections are not part of it.",
            labels=("protocol",),
        )
        for protocol, counts in self._counts.items():
            buckets, total = [], 0
            for bound, count in zip((*(f"{bound / 1000:g}" for bound in BOUNDS_MS), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            family.add_metric((protocol,), buckets, self._sums_ms[protocol] / 1000)
        yield family


class Gauges(Collector):
    """What is open and what is waiting at the moment of the scrape."""

    def __init__(self, open_connections: Callable[[], Mapping[str, int]], waiting: Callable[[], int]) -> None:
        self._open_connections = open_connections
        self._waiting = waiting

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges."""
        opened = GaugeMetricFamily("apimgmt_open_connections", "Open connections.", labels=("protocol",))
        counts = self._open_connections()
        for protocol in Protocol:
            opened.add_metric((protocol.value,), counts.get(protocol.value, 0))
        yield opened
        waiting = GaugeMetricFamily("apimgmt_usage_batches_waiting", "Usage batches that NATS has not stored yet.")
        waiting.add_metric((), self._waiting())
        yield waiting


class ProcessMetrics:
    """The registry of one process."""

    def __init__(self, open_connections: Callable[[], Mapping[str, int]], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._counters = [
            Counter(f"apimgmt_{name}", HELP[name], ("protocol", "outcome"), registry=self.registry) for name in COUNTED
        ]
        self._children: dict[tuple[str, str], list[Counter]] = {}
        self._refusals = Counter(
            "apimgmt_refusals", "Refusals, of calls and inside connections.", ("protocol", "reason"),
            registry=self.registry,
        )  # fmt: skip
        self._dropped = Counter(
            "apimgmt_usage_dropped", "Usage batches and tallies dropped; analytics lacks them.", registry=self.registry
        )
        self._batches_too_large = Counter(
            "apimgmt_usage_batches_too_large",
            "Usage batches that NATS refused for their size; they are split, and a single record is dropped.",
            registry=self.registry,
        )
        self._latencies = Latencies()
        self.observe_latency = self._latencies.observe
        self.registry.register(self._latencies)
        self.registry.register(Gauges(open_connections, waiting))
        ProcessCollector(registry=self.registry)

    def count(self, protocol: str, outcome: str, amounts: Iterable[int]) -> None:
        """Add amounts, in the order of ``COUNTED``."""
        for counter, amount in zip(self._of(protocol, outcome), amounts, strict=True):
            if amount:
                counter.inc(amount)

    def refused(self, protocol: Protocol, reason: Reason, times: int = 1) -> None:
        """Count refusals."""
        self._refusals.labels(protocol.value, reason.value).inc(times)

    def dropped(self) -> None:
        """Count a batch or a tally that analytics will never have."""
        self._dropped.inc()

    def batch_too_large(self) -> None:
        """Count a batch that NATS refused for its size."""
        self._batches_too_large.inc()

    def _of(self, protocol: str, outcome: str) -> list[Counter]:
        children = self._children.get((protocol, outcome))
        if children is None:
            if len(self._children) >= OUTCOMES_MAX and outcome != OTHER:
                return self._of(protocol, OTHER)
            children = [counter.labels(protocol, outcome) for counter in self._counters]
            self._children[protocol, outcome] = children
        return children
