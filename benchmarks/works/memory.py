"""What one more idle connection takes of a server's memory."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import Any

from benchmarks.ours import over_mqtt
from benchmarks.peers.servers import Server
from benchmarks.place import Place, Run, Work, load_command
from benchmarks.processes import stop
from benchmarks.sampling import OURS, Sample, WrongAnswer
from benchmarks.works.fan_out import CHANNEL, dialect

CONNECTIONS = 400


def _idle(place: Place) -> dict[str, Run]:
    servers = place.servers("centrifuge", "Mosquitto")
    ours, peers, broker = servers[0], servers[1:], over_mqtt(place.ready)
    spoken: dict[str, tuple[Server, list[Any]]] = {
        f"{OURS} stream": (ours, ["stream", ours.port, ours.key, CHANNEL]),
        f"{OURS} SSE": (ours, ["sse", ours.port, ours.key, CHANNEL]),
        f"{OURS} MQTT": (broker, ["mqtt", broker.port, broker.key, CHANNEL]),
        f"{OURS} proxied": (ours, ["tunnel", ours.port, ours.key, "/ws"]),
    } | {peer.name: (peer, dialect(peer, "")) for peer in peers}
    return {who: partial(_more, _holder(place, *one)) for who, one in spoken.items()}


def _holder(place: Place, server: Server, spoken: list[Any]) -> subprocess.Popen[bytes]:
    """Start the process that keeps the connections of all rounds open."""
    arguments = {"dialect": spoken, "pids": server.pids, "connections": CONNECTIONS}
    holder = subprocess.Popen(load_command("idle", arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    place.stack.callback(stop, holder)
    return holder


def _more(holder: subprocess.Popen[bytes], _: float) -> Sample:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"\n")
    holder.stdin.flush()
    if not (line := holder.stdout.readline()):
        raise WrongAnswer("idle connections were closed")
    sample: dict[str, float] = json.loads(line)
    return sample


WORKS = (
    Work(
        "memory",
        "Memory of an idle connection",
        f"The growth of the resident memory for {CONNECTIONS} further connections, while all earlier ones stay open. "
        "apimgmt's are governed and in the ledger.",
        _idle,
    ),
)
