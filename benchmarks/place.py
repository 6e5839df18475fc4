"""The servers of one run, each started when a work first needs it and kept until the end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.peers.programs import NotInstalled
from benchmarks.peers.servers import STARTS, Server, Upstreams, upstreams
from benchmarks.processes import LOAD_CORE
from benchmarks.sampling import OURS, Sample, WrongAnswer

LOAD_TIMEOUT_S = 180
Run = Callable[[float], Sample]
"""One run of so many seconds."""


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that servers do, and how to have each do it."""

    name: str
    title: str
    how: str
    entrants: Callable[[Place], Mapping[str, Run]]
    """Prepares the work; returns one run for each server by its name."""
    is_fixed: bool = False
    """Whether a run takes as long as it takes, so that no warm-up is made."""


@dataclass
class Place:
    """Where the works are done."""

    folder: Path
    stack: ExitStack
    _servers: dict[str, Server] = field(default_factory=dict)

    @cached_property
    def upstreams(self) -> Upstreams:
        """What all proxies proxy to."""
        return self.stack.enter_context(upstreams(self.folder))

    @cached_property
    def ready(self) -> dict[str, Any]:
        """What the product's ready.json says."""
        return self.stack.enter_context(ours.product(self.folder))

    def server(self, name: str) -> Server:
        """Return a running server. Raises NotInstalled."""
        if name not in self._servers:
            self._servers[name] = (
                ours.server(self.ready, self.upstreams)
                if name == OURS
                else self.stack.enter_context(STARTS[name](self.folder, self.upstreams))
            )
        return self._servers[name]

    def servers(self, *names: str) -> list[Server]:
        """Return the product and those of these peers that are installed."""
        found = [self.server(OURS)]
        for name in names:
            try:
                found.append(self.server(name))
            except NotInstalled:
                continue
        return found


def load(name: str, **arguments: Any) -> dict[str, float]:
    """Run one of ``benchmarks.loads`` on the load's core. Raises WrongAnswer with what it says of its failure."""
    try:
        done = subprocess.run(
            load_command(name, arguments), capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WrongAnswer(f"{name} did not end within {LOAD_TIMEOUT_S} s") from error
    if done.returncode:
        raise WrongAnswer(f"{name}: {done.stderr.strip()[-600:]}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def load_command(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command of a load."""
    return ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.loads", name, json.dumps(arguments)]


def measure(runs: Mapping[str, Run], rounds: int, seconds: float, *, is_fixed: bool) -> dict[str, list[Sample]]:
    """Run all in turn, round by round, so that a machine whose speed drifts is fair to all; first to warm up."""
    if not is_fixed:
        for run in runs.values():
            run(min(1.0, seconds))
    samples: dict[str, list[Sample]] = {who: [] for who in runs}
    for _ in range(rounds):
        for who, run in runs.items():
            samples[who].append(run(seconds))
            time.sleep(0.1)
    return samples
