"""What is measured of the product alone: policies and revocation."""

from __future__ import annotations

from functools import partial

from benchmarks import ours, revocation
from benchmarks.place import Place, Run, Work
from benchmarks.sampling import OURS, Sample


def _policies(place: Place) -> dict[str, Run]:
    place.server(OURS)
    costs = {name: [cost] for name, cost in ours.policies(place.folder).items()}

    def run(name: str, _: float) -> Sample:
        """Take the next round's cost; one measurement of all policies serves the whole round."""
        if not costs[name]:
            for policy, cost in ours.policies(place.folder).items():
                costs[policy].append(cost)
        return {"policy_us": costs[name].pop(0)}

    return {name: partial(run, name) for name in costs}


def _revocation(_: Place) -> dict[str, Run]:
    def run(_: float) -> Sample:
        measured = revocation.measure()
        return {"p50_ms": measured["p50_ms"], "p99_ms": measured["p99_ms"]}

    return {OURS: run}


WORKS = (
    Work(
        "policies",
        "Policy, by call",
        "The CPU time that a policy adds to a call with a small JSON body and answer, in one process "
        "without sockets; the "
        "best of thirty turns in each round. A plain function is called on a separate thread.",
        _policies,
        is_fixed=True,
    ),
    Work(
        "revocation",
        "Revocation of 1,000 sockets",
        "100 keys with ten sockets each (`/v1/stream`, SSE, MQTT, a proxied WebSocket) over two processes are revoked "
        "through the management API. From the request's first byte until the client reads the close.",
        _revocation,
        is_fixed=True,
    ),
)
