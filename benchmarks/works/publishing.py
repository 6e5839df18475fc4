"""Publishes that are stored and acknowledged, each checked by a small schema."""

from __future__ import annotations

import json
import urllib.request
from functools import partial
from typing import Any

from benchmarks.loads import publishing, wrk
from benchmarks.loads.dialects import event
from benchmarks.loads.meter import Meter
from benchmarks.loads.wrk import CONNECTIONS
from benchmarks.ours import CHECKED
from benchmarks.peers.servers import Server
from benchmarks.place import Place, Run, Work, load
from benchmarks.sampling import OURS, Sample, WrongAnswer
from benchmarks.works.fan_out import servers_of

MANY, ARRAYS_AT_ONCE = 100, 8
HOW_SOCKET = (
    f"{publishing.CONNECTIONS} connections with at most {publishing.IN_FLIGHT} events in flight each; "
    "every event must be "
    "acknowledged. "
)


def _rest(events: int, place: Place) -> dict[str, Run]:
    server = place.server(OURS)
    body = json.dumps(event(0) if events == 1 else [event(number) for number in range(events)])
    script = place.folder / f"publish-{events}.lua"
    script.write_text(f'wrk.method = "POST"\nwrk.body = [[{body}]]\nwrk.headers["content-type"] = "application/json"\n')
    url = f"http://127.0.0.1:{server.port}/v1/channels/{CHECKED}/events"

    def run(seconds: float) -> Sample:
        _probe(server, url, body, events)
        meter = Meter(server.pids, server.stores)
        printed = wrk.run(
            url, {"X-API-Key": server.key}, seconds, str(script), CONNECTIONS if events == 1 else ARRAYS_AT_ONCE
        )
        if printed.errors:
            raise WrongAnswer(f"{printed.errors} of {printed.requests} publishes failed")
        return meter.sample(printed.requests * events) | {"p50_ms": printed.p50_ms, "p99_ms": printed.p99_ms}

    return {OURS: run}


def _probe(server: Server, url: str, body: str, events: int) -> None:
    """Publish once, and see an id for each event."""
    headers = {"X-API-Key": server.key, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=10) as reply:
        answer: dict[str, Any] = json.loads(reply.read())
    ids = answer.get("ids") or [answer.get("id")]
    if reply.status != 201 or len(set(ids)) != events:
        raise WrongAnswer(f"a publish of {events} events was answered with {reply.status} and {len(ids)} ids")


def _socket(protocol: str, peers: tuple[str, ...], place: Place) -> dict[str, Run]:
    def run(server: Server, seconds: float) -> Sample:
        qos = [1] if protocol == "mqtt" else []
        dialect = [protocol, server.port, server.key, CHECKED, *qos]
        return load("publishing", dialect=dialect, pids=server.pids, stores=server.stores, seconds=seconds)

    return {server.name: partial(run, server) for server in servers_of(place, protocol, *peers)}


WORKS = (
    Work(
        "publish-rest",
        "Publish, REST, one event",
        f"`POST` of one event over {CONNECTIONS} connections; 201 after it is checked by the "
        "channel's schema and stored.",
        partial(_rest, 1),
    ),
    Work(
        "publish-array",
        f"Publish, REST, array of {MANY}",
        f"As before, an array in each call of {ARRAYS_AT_ONCE} connections; by event.",
        partial(_rest, MANY),
    ),
    Work("publish-websocket", "Publish, WebSocket", HOW_SOCKET, partial(_socket, "stream", ())),
    Work(
        "publish-mqtt",
        "Publish, MQTT QoS 1",
        HOW_SOCKET + "Mosquitto acknowledges without checking or storing.",
        partial(_socket, "mqtt", ("Mosquitto",)),
    ),
)
