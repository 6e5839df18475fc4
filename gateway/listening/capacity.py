"""What one process can hold: its connections and its memory, checked regularly and reported as metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.config import Config
from gateway.listening.ceilings import Ceilings, open_files_max
from gateway.listening.machine import memory_bytes
from gateway.listening.memory import Level, MemoryBudget
from gateway.listening.tcp_connections import Ceiling, TcpConnections
from gateway.refusals import Reason, Refused

SAMPLE_S = 1.0
MEMORY_SHARE = 4
"""The default budget of a process is this part of the machine's memory."""
RETRY_AFTER_S = 2.0


class Capacity(Collector):
    """The capacity of one process, and its metrics."""

    def __init__(self, config: Config, *, files: int | None = None, memory: MemoryBudget | None = None) -> None:
        self.memory = memory or MemoryBudget(config.memory_max_bytes or memory_bytes() // MEMORY_SHARE)
        files = files if files is not None else open_files_max()
        ceilings = Ceilings.of(config, files, self.memory.room_bytes)
        self.connections = TcpConnections(ceilings, config.trusted_proxies)
        self.malformed_proxy_headers = 0
        self.accept_failures = 0
        """How often no connection could be accepted, for want of files or memory."""
        self._sampled_at = 0.0

    def sweep(self, now: float | None = None) -> None:
        """Hold the ceilings, and measure memory once a second."""
        now = time.monotonic() if now is None else now
        self.connections.sweep(now)
        if now - self._sampled_at >= SAMPLE_S:
            self._sampled_at = now
            self.connections.is_tight = self.memory.sample() > Level.ENOUGH
        if self.connections.is_tight:
            self.connections.shed_youngest()

    def refusal(self, *, is_anonymous: bool = False) -> Refused | None:
        """Return the refusal of new work if memory is too scarce for it, or for that of nobody in particular."""
        is_refused = self.memory.level is Level.FULL or (is_anonymous and self.memory.level is Level.TIGHT)
        return overloaded("memory") if is_refused else None

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        opened = GaugeMetricFamily("apimgmt_tcp_connections", "Open TCP connections.", labels=("proved",))
        opened.add_metric(("no",), self.connections.anonymous)
        opened.add_metric(("yes",), self.connections.with_credential)
        yield opened
        shed = CounterMetricFamily(
            "apimgmt_connections_shed", "Connections closed or refused because of a ceiling.", labels=("ceiling",)
        )
        for ceiling in Ceiling:
            shed.add_metric((ceiling.value,), self.connections.shed[ceiling])
        yield shed
        yield CounterMetricFamily(
            "apimgmt_proxy_headers_malformed",
            "Connections closed for their PROXY header.",
            self.malformed_proxy_headers,
        )
        yield CounterMetricFamily(
            "apimgmt_accept_failures", "Failures to accept, for want of files or memory.", self.accept_failures
        )
        yield GaugeMetricFamily("apimgmt_memory_budget_bytes", "The memory budget.", self.memory.max_bytes)
        yield GaugeMetricFamily(
            "apimgmt_memory_level", "0: enough. 1: anonymous work is shed. 2: new work is refused.", self.memory.level
        )


def overloaded(cause: str) -> Refused:
    """Return the refusal of a process that has too much to do."""
    return Refused(Reason.OVERLOADED, retry_after_s=RETRY_AFTER_S, cause=cause)
