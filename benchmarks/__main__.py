"""Runs every measurement, prints ratios and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import ours, peers, revocation
from benchmarks.http_load import CONNECTIONS, Measured, measure
from benchmarks.peers import Peer

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
ECHO_CONNECTIONS, FAN_OUT_SUBSCRIBERS = 50, 500


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    work: str
    who: str
    figure: str
    against: str


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in turn; medians are reported (default 3)")
    parser.add_argument("--no-write", action="store_true", help="do not write docs/benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        upstream_port = stack.enter_context(peers.upstream(folder))
        ready = stack.enter_context(ours.product(folder))
        proxies = [
            Peer("apimgmt", ours.route_to(ready, upstream_port), ready["keys"]["bench"]),
            stack.enter_context(peers.envoy(folder, upstream_port)),
            stack.enter_context(peers.nginx(folder, upstream_port)),
        ]
        rows = _http(proxies, options.seconds, options.rounds)
        rows += _sockets(ready, options.seconds, options.rounds)
        rows += [
            Row(f"Policy: {name}", "apimgmt", f"{cost:+.1f} µs a call", "")
            for name, cost in ours.policies(folder).items()
        ]
    rows.append(_revocation(options.rounds))
    for row in rows:
        print(f"{row.work:34} {row.who:9} {row.figure:>40}  {row.against}")
    if not options.no_write:
        PAGE.write_text(_page(rows, options.seconds, options.rounds))


def _http(proxies: list[Peer], seconds: int, rounds: int) -> list[Row]:
    """Measure the proxies in turn, round by round, so that a machine whose speed drifts is fair to all."""
    runs: dict[str, list[Measured]] = {peer.name: [] for peer in proxies}
    for _ in range(rounds):
        for peer in proxies:
            runs[peer.name].append(measure(peer, seconds))
    if errors := {
        name: sum(run.errors for run in all_) for name, all_ in runs.items() if any(run.errors for run in all_)
    }:
        raise RuntimeError(f"requests failed: {errors}")
    us = statistics.median(run.per_s for run in runs["apimgmt"])
    rows = []
    for name, all_ in runs.items():
        rate = statistics.median(run.per_s for run in all_)
        p50 = statistics.median(run.p50_ms for run in all_)
        p99 = statistics.median(run.p99_ms for run in all_)
        against = "" if name == "apimgmt" else f"apimgmt is {us / rate:.2f} × {name}"
        rows.append(
            Row("HTTP proxy, key and limits", name, f"{rate:,.0f}/s  p50 {p50:.1f} ms  p99 {p99:.1f} ms", against)
        )
    return rows


def _sockets(ready: dict[str, object], seconds: int, rounds: int) -> list[Row]:
    echo = statistics.median(ours.sockets("echo", ready, ECHO_CONNECTIONS, seconds)["per_s"] for _ in range(rounds))
    fans = [ours.sockets("fan_out", ready, FAN_OUT_SUBSCRIBERS, 100 * seconds) for _ in range(rounds)]
    if lost := [fan for fan in fans if fan["delivered"] != fan["expected"]]:
        raise RuntimeError(f"events were lost: {lost}")
    fan_out = statistics.median(fan["per_s"] for fan in fans)
    return [
        Row(f"WebSocket echo, {ECHO_CONNECTIONS} sockets", "apimgmt", f"{echo:,.0f} messages/s", ""),
        Row(f"Fan-out to {FAN_OUT_SUBSCRIBERS} subscribers", "apimgmt", f"{fan_out:,.0f} deliveries/s", ""),
    ]


def _revocation(rounds: int) -> Row:
    runs = [revocation.measure() for _ in range(rounds)]
    p50, p99 = (statistics.median(run[name] for run in runs) for name in ("p50_ms", "p99_ms"))
    figure = f"p50 {p50:.0f} ms  p99 {p99:.0f} ms"
    return Row(f"Revocation, {runs[0]['sockets']:,} sockets closed", "apimgmt", figure, "")


def _page(rows: list[Row], seconds: int, rounds: int) -> str:
    table = "\n".join(f"| {row.work} | {row.who} | {row.figure} | {row.against} |" for row in rows)
    return f"""# Benchmarks

Written by `script/bench` on {datetime.now(UTC):%Y-%m-%d}: {platform.machine()}, {platform.system()}, CPython
{platform.python_version()}. One run measures everything, each server pinned to one core and the load, with the
upstream that all proxies share, to another. Figures are
medians of {rounds} rounds of {seconds} s, with the proxies in turn.

| work | who | measured | ratio |
|---|---|---|---|
{table}

- **HTTP proxy, key and limits**: `GET` of a small JSON answer over {CONNECTIONS} keep-alive connections (wrk). apimgmt
  checks the key and five limits of the tier, and meters the call; Envoy runs `api_key_auth` and `local_ratelimit`;
  nginx runs a key map and `limit_req`.
- **WebSocket echo**: `ping` → `pong` on `/v1/stream`, eight in flight per socket, through the connection class that
  serves all frames.
- **Policy**: the CPU time that it adds to a call with a small JSON body and answer, in one process without
  sockets; the best of thirty rounds. A plain function is called on a separate thread.
- **Fan-out**: events published on one socket, stored in JetStream, delivered to every subscriber's socket of one
  process.
- **Revocation**: 100 keys with ten sockets each (`/v1/stream`, SSE, MQTT, a proxied WebSocket) over two processes are
  revoked through the management API. Measured from the request's first byte until the client reads the
  close.

Absolute figures depend on the machine; the ratios are more portable. Run `script/bench` on yours.
"""


if __name__ == "__main__":
    main()
