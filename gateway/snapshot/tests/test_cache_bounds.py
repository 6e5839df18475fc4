"""Caches by names that callers choose: a flood of names takes little memory."""

import random
import tracemalloc

import pytest

from gateway.identity.rights import allowed, conflated_s
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.paths import normalised
from gateway.snapshot.picture import MATCHES_KEPT, NAME_MAX_CHARS, Snapshot
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb
from gateway.tests.event_plane import channel

CEILING_BYTES = 24 * 1024 * 1024
SCOPES = ("publish:orders/*", "subscribe:sensors/{id}?conflate=1s")
KEYED = Principal(consumer="acme", key="k1", tier="gold", scopes=SCOPES)


@pytest.fixture
def snapshot():
    route = {"name": "files", "path": "/files/{rest...}", "methods": [], "protocol": "http", "policies": []}
    route |= {"reserved_override": False, "handler": {"type": "upstream", "url": "http://127.0.0.1:1"}}
    return Snapshot.from_documents({"channel": [channel("sensors/{id}")], "route": [route]})


def flood(snapshot, number, name):
    """Use a name in each way in which a caller can."""
    method = ("GET", "POST", "DELETE", "OPTIONS")[number % 4]
    for path in (f"/files/{name}", f"/v1/channels/{name}/events", f"/v1/jobs/{name}", f"/{name}"):
        try:
            snapshot.match(Protocol.HTTP, method, normalised(path.encode()))
        except Refused:
            continue
    snapshot.channel(f"sensors/{name}")
    right = Right((Verb.PUBLISH, Verb.SUBSCRIBE)[number % 2], name)
    allowed(KEYED, right)
    conflated_s(KEYED, right)


def test_a_flood_of_names_takes_little_memory(snapshot):
    chance = random.Random(13)
    sizes = (1, 20, 200, 2_000, 7_900)
    tracemalloc.start()
    try:
        for number in range(2_500):
            flood(snapshot, number, f"{number:x}" + "x" * chance.choice(sizes))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < CEILING_BYTES


def test_only_short_names_are_kept(snapshot):
    for number in range(MATCHES_KEPT + 10):
        flood(snapshot, 0, str(number))
    flood(snapshot, 0, "y" * 8_000)
    for kept in (snapshot._matches, snapshot._addresses._found):
        assert 0 < len(kept) <= MATCHES_KEPT
    assert max(len(path) for _, _, path in snapshot._matches) <= NAME_MAX_CHARS
    assert max(map(len, snapshot._addresses._found)) <= NAME_MAX_CHARS


def test_a_long_name_means_the_same_as_a_short_one(snapshot):
    long = "z" * 2_000
    for _ in range(2):
        assert snapshot.channel(f"sensors/{long}")[1] == {"id": long}
        assert snapshot.match(Protocol.HTTP, "GET", f"/files/{long}").parameters == {"rest": long}
        assert allowed(KEYED, Right(Verb.PUBLISH, f"orders/{long}"))
        assert not allowed(KEYED, Right(Verb.PUBLISH, long))
