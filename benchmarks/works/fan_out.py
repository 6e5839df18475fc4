"""One event to many subscribers: its cost by delivery, and how long the last of them waits."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.loads import fan_out
from benchmarks.ours import over_mqtt
from benchmarks.peers.servers import Server
from benchmarks.place import Place, Run, Work, load
from benchmarks.sampling import OURS, Sample

CHANNEL = "trades"
MANY, LATENCY_READERS, LATENCY_EACH_S = 2_000, 1_000, 100
HOW = (
    "Events of about 90 bytes are published as fast as the slowest subscriber reads, at most "
    f"{fan_out.IN_FLIGHT} ahead of it; each must reach every subscriber exactly once. "
)


def dialect(server: Server, protocol: str) -> list[Any]:
    """Return how clients of this server speak."""
    if server.name == "Mosquitto":
        return ["mqtt", server.port, server.key, "bench"]
    if server.name == "centrifuge":
        return ["centrifuge", server.port, server.key, "bench"]
    return [protocol, server.port, server.key, CHANNEL]


def servers_of(place: Place, protocol: str, *peers: str) -> list[Server]:
    """Return the product as it serves this protocol, and those of these peers that are installed."""
    ours, *others = place.servers(*peers)
    return [over_mqtt(place.ready) if protocol == "mqtt" else ours, *others]


def _fan_out(protocol: str, readers: int, peers: tuple[str, ...], place: Place) -> dict[str, Run]:
    def run(server: Server, seconds: float) -> Sample:
        return load(
            "fan-out",
            reader=dialect(server, protocol),
            writer=dialect(place.server(server.name), "stream"),
            pids=server.pids,
            stores=server.stores,
            readers=readers,
            seconds=seconds,
        )

    return {server.name: partial(run, server) for server in servers_of(place, protocol, *peers)}


def _latency(place: Place) -> dict[str, Run]:
    def run(server: Server, seconds: float) -> Sample:
        spoken = dialect(server, "stream")
        arguments = {"readers": LATENCY_READERS, "each_s": LATENCY_EACH_S, "seconds": seconds}
        return load("fan-out-latency", reader=spoken, writer=spoken, **arguments)

    return {server.name: partial(run, server) for server in place.servers("centrifuge", "Mosquitto")}


def _work(name: str, title: str, how: str, protocol: str, readers: int, *peers: str) -> Work:
    return Work(name, title, how, partial(_fan_out, protocol, readers, peers))


WORKS = (
    _work(
        "fan-out-500",
        "Fan-out, 500 WebSockets",
        HOW + "apimgmt stores each event in JetStream first; centrifuge and Mosquitto (MQTT, QoS 0) keep none.",
        *("stream", 500, "centrifuge", "Mosquitto"),
    ),
    _work(
        "fan-out-2000",
        "Fan-out, 2,000 WebSockets",
        "As before, with more subscribers.",
        *("stream", MANY, "centrifuge", "Mosquitto"),
    ),
    _work("fan-out-sse", "Fan-out, 500 SSE", "As before, to event streams.", "sse", 500),
    _work("fan-out-mqtt", "Fan-out, 500 MQTT", "As before, over MQTT 3.1.1, QoS 0.", "mqtt", 500, "Mosquitto"),
    Work(
        "delivery-latency",
        f"Publish → last of {LATENCY_READERS:,} deliveries",
        f"{LATENCY_EACH_S} events a second to {LATENCY_READERS:,} subscribers; from writing the "
        "publish to when the last "
        f"subscriber has read the event, with the load's own {LATENCY_READERS:,} reads in it. {OURS} "
        "stores each event first.",
        _latency,
    ),
)
