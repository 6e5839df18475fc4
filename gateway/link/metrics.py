"""Metrics of all processes: each process reports its own registry over NATS, and a scrape gathers the reports.

Every process announces itself every few seconds, so that a process that does not report is known by name. The reports
carry the labels ``process`` (``web-1``) and ``host``; figures start at zero with each run of a process, as Prometheus
expects of counters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.concurrency.stopping import stop_tasks
from gateway.link.nats import connect

logger = logging.getLogger(__name__)

REPORT_SUBJECT = "_apimgmt.metrics.report"
ALIVE_SUBJECT = "_apimgmt.metrics.alive"
ANNOUNCE_S = 5.0
GATHER_S = 0.5
"""Deadline of a scrape: a process that has not reported by then is reported as down."""
FORGET_S = 600.0
"""How long a process that no longer announces itself is reported as down."""
FAULTS = (OSError, TimeoutError, NatsError)

Identity = tuple[str, str]
"""Host and process."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a process: ``web-1-a3f09c``, whose label is ``web-1``."""

    name: str
    started_at: float
    host: str

    @property
    def process(self) -> str:
        """The name without the suffix that differs at each start."""
        return self.name.rpartition("-")[0] or self.name

    @property
    def identity(self) -> Identity:
        """What stays the same when the process is restarted."""
        return self.host, self.process

    def fields(self) -> dict[str, Any]:
        """Return the run as the fields of a message."""
        return {"run": self.name, "started_at": self.started_at, "host": self.host}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Run:
        """Parse the fields of a message. Raises KeyError or TypeError."""
        return cls(str(fields["run"]), float(fields["started_at"]), str(fields["host"]))


class Reporter:
    """Announces a process and answers scrapes with the text of its registry."""

    def __init__(self, client: Client, run: str, registry: CollectorRegistry) -> None:
        self._client = client
        self._run = Run(run, time.time(), socket.gethostname())
        self._registry = registry
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start answering and announcing."""
        self._subscription = await self._client.subscribe(REPORT_SUBJECT, cb=self._report)
        self._task = asyncio.create_task(self._announce_regularly(), name="metrics: announce")

    async def stop(self) -> None:
        """Announce that the process ends, so that it is not reported as down."""
        await stop_tasks(self._task)
        if self._subscription is not None:
            with contextlib.suppress(*FAULTS):
                await self._subscription.unsubscribe()
        await self._announce(is_stopping=True)

    async def _announce_regularly(self) -> None:
        while True:
            await self._announce()
            await asyncio.sleep(ANNOUNCE_S)

    async def _announce(self, *, is_stopping: bool = False) -> None:
        with contextlib.suppress(*FAULTS):
            await self._client.publish(ALIVE_SUBJECT, orjson.dumps(self._run.fields() | {"stopping": is_stopping}))

    async def _report(self, message: Msg) -> None:
        text = exposition(self._registry, {"host": self._run.host, "process": self._run.process})
        with contextlib.suppress(*FAULTS):
            await message.respond(orjson.dumps(self._run.fields() | {"text": text}))


class Scraper:
    """Gathers the metrics of all processes; connects to NATS at the first scrape."""

    def __init__(self, nats_url: Callable[[], str], *, within_s: float = GATHER_S) -> None:
        self._nats_url = nats_url
        self._within_s = within_s
        self._connecting: asyncio.Task[Client] | None = None
        self._announced: dict[Identity, tuple[Run, float]] = {}
        """The last announcement of each process, and when it arrived (monotonic)."""
        self._listens_since = 0.0

    async def text(self) -> str:
        """Return all metrics in Prometheus' text format, within about half a second, whatever is unavailable."""
        reports: dict[Identity, tuple[Run, str]] = {}
        is_connected = False
        try:
            async with asyncio.timeout(self._within_s):
                client = await self._connected()
            is_connected = client.is_connected
            if is_connected:
                await self._gather(client, reports)
        except FAULTS as error:
            logger.warning("metrics: NATS is unavailable: %s", error or type(error).__name__)
        return merged([self._own(reports, is_nats_up=is_connected), *(text for _, text in reports.values())])

    async def stop(self) -> None:
        """Disconnect; the next scrape connects again."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None and connecting.done() and not connecting.exception():
            await connecting.result().close()
        await stop_tasks(connecting)

    async def _connected(self) -> Client:
        connecting = self._connecting
        loop = asyncio.get_running_loop()
        if connecting is None or connecting.get_loop() is not loop or _has_failed(connecting):
            connecting = self._connecting = loop.create_task(self._connect(), name="metrics: connect")
        return await asyncio.shield(connecting)

    async def _connect(self) -> Client:
        self._announced.clear()
        client, _ = await connect(self._nats_url(), "metrics")
        await client.subscribe(ALIVE_SUBJECT, cb=self._note)
        self._listens_since = time.monotonic()
        return client

    async def _note(self, message: Msg) -> None:
        try:
            fields = orjson.loads(message.data)
            run = Run.from_fields(fields)
            is_stopping = bool(fields["stopping"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            logger.warning("metrics: an announcement could not be read")
            return
        noted = self._announced.get(run.identity)
        if noted is not None and noted[0].started_at > run.started_at:
            return
        if is_stopping:
            self._announced.pop(run.identity, None)
        else:
            self._announced[run.identity] = (run, time.monotonic())

    async def _gather(self, client: Client, reports: dict[Identity, tuple[Run, str]]) -> None:
        """Fill in the reports that arrive in time; return early once every announced process has reported."""
        has_all = asyncio.Event()

        async def receive(message: Msg) -> None:
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                fields = orjson.loads(message.data)
                run = Run.from_fields(fields)
                if run.identity not in reports or reports[run.identity][0].started_at < run.started_at:
                    reports[run.identity] = (run, str(fields["text"]))
                if self._announced.keys() <= reports.keys() and self._knows_all():
                    has_all.set()

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=receive)
        try:
            async with asyncio.timeout(self._within_s):
                await client.publish(REPORT_SUBJECT, b"", reply=inbox)
                await has_all.wait()
        except TimeoutError:
            pass  # what is missing is reported as down
        finally:
            with contextlib.suppress(*FAULTS):
                await subscription.unsubscribe()

    def _knows_all(self) -> bool:
        """Return whether every live process has had the time to announce itself."""
        return time.monotonic() - self._listens_since > ANNOUNCE_S + self._within_s

    def _own(self, reports: Mapping[Identity, tuple[Run, str]], *, is_nats_up: bool) -> str:
        now = time.monotonic()
        self._announced = {
            identity: (run, at) for identity, (run, at) in self._announced.items() if now - at < FORGET_S
        }
        up = GaugeMetricFamily(
            "apimgmt_process_up", "1 if the process reported its metrics in time, else 0.", labels=("host", "process")
        )
        for identity in sorted(self._announced.keys() | reports.keys()):
            up.add_metric(identity, 1 if identity in reports else 0)
        nats = GaugeMetricFamily("apimgmt_nats_up", "1 if the process that was scraped is connected to NATS, else 0.")
        nats.add_metric((), int(is_nats_up))
        return generate_latest(_Families([up, nats])).decode()


class _Families(Collector):
    """Metrics that were collected before."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._metrics


def exposition(registry: CollectorRegistry, labels: Mapping[str, str]) -> str:
    """Format a registry in Prometheus' text format, each sample with further labels; ``_created`` is left out."""
    metrics = list(registry.collect())
    for metric in metrics:
        metric.samples = [
            sample._replace(labels={**labels, **sample.labels})
            for sample in metric.samples
            if not sample.name.endswith("_created")
        ]
    return generate_latest(_Families(metrics)).decode()


def merged(texts: Iterable[str]) -> str:
    """Merge expositions: the format wants all samples of a metric in one group, below its HELP and TYPE."""
    families: dict[str, list[str]] = {}
    for text in texts:
        samples: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                samples = families.setdefault(line, [])
            elif line not in samples[:1]:
                samples.append(line)
    return "".join(f"{head}\n" + "".join(f"{line}\n" for line in lines) for head, lines in families.items())


def _has_failed(task: asyncio.Task[Client]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
