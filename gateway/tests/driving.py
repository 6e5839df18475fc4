"""By which driver of the path the planes of tests serve plain calls."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import Any

from gateway.credentials.api_keys import Credential
from gateway.refusals import Refused
from gateway.snapshot.documents import Route
from gateway.upstream.origin import Origin


class Driver(Enum):
    """What serves the plain calls of a plane."""

    CARRIER = "carried"
    """The carrier. Its keys are proved and a connection to each upstream is open, so that it carries the first call."""
    PATH = "in a task"


driver: Driver | None = None
"""What the tests of HTTP run with, one after the other; None: as the product starts."""


async def warm(plane: Any) -> None:
    """Prove the keys, and open a connection to each upstream that can be reached."""
    for key in (plane.key, plane.other_key):
        proof = plane.snapshot.key(key.id)
        assert proof is not None, "it was configured"
        plane.authenticator._proofs[plane.authenticator.proof_id(Credential("key", key.text))] = proof
    for origin in {Origin.of(route.handler["url"]) for route in plane.snapshot.routes() if _is_plain(route)}:
        with suppress(Refused):
            connection = await plane.upstreams.lend(origin)
            connection.is_whole = connection._keeps_alive = True
            plane.upstreams.take_back(connection)


def _is_plain(route: Route) -> bool:
    return route.protocol == "http" and route.handler["type"] == "upstream"
