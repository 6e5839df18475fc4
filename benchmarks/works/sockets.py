"""WebSockets through each proxy, and handshakes."""

from __future__ import annotations

from functools import partial

from benchmarks.loads import echo, handshakes
from benchmarks.peers.servers import Server
from benchmarks.place import Place, Run, Work, load
from benchmarks.sampling import OURS, Sample
from benchmarks.works.http import PROXIES

HOW_ECHO = (
    f"A message of {len(echo.MESSAGE)} bytes on each of {echo.CONNECTIONS} sockets, proxied to a "
    "server that returns it; "
    "every returned byte is compared. apimgmt counts and limits each message; the peers' tunnels are blind."
)


def _echo(in_flight: int, place: Place) -> dict[str, Run]:
    def run(server: Server, seconds: float) -> Sample:
        dialect = ["tunnel", server.port, server.key, "/ws"]
        return load("echo", dialect=dialect, pids=server.pids, in_flight=in_flight, seconds=seconds)

    return {server.name: partial(run, server) for server in place.servers(*PROXIES)}


def _handshakes(dialect: list[object], server: Server, seconds: float) -> Sample:
    return load("handshakes", dialect=dialect, pids=server.pids, seconds=seconds)


def _tunnels(place: Place) -> dict[str, Run]:
    return {
        server.name: partial(_handshakes, ["tunnel", server.port, server.key, "/ws"], server)
        for server in place.servers(*PROXIES)
    }


def _streams(place: Place) -> dict[str, Run]:
    dialects = {OURS: "stream", "centrifuge": "centrifuge"}
    return {
        server.name: partial(_handshakes, [dialects[server.name], server.port, server.key, "trades"], server)
        for server in place.servers("centrifuge")
    }


WORKS = (
    Work("echo-1", "Proxied WebSocket echo, 1 in flight", HOW_ECHO, partial(_echo, 1)),
    Work(
        "echo-8", "Proxied WebSocket echo, 8 in flight", "As before, with eight messages in flight.", partial(_echo, 8)
    ),
    Work(
        "handshake-proxied",
        "Handshake, proxied WebSocket",
        f"{handshakes.AT_ONCE} clients connect, complete the handshake with the upstream, and close with 1000.",
        _tunnels,
    ),
    Work(
        "handshake-stream",
        "Handshake, `/v1/stream`",
        f"{handshakes.AT_ONCE} clients connect, are welcomed, and close with 1000. centrifuge's are also subscribed.",
        _streams,
    ),
)
