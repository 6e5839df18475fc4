"""One limit, several processes, a real Valkey: what may be exceeded is what the documentation says."""

from __future__ import annotations

import bisect
import itertools
import json
import subprocess
import sys
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.call import Call
from gateway.limiter import Limiter
from gateway.limits.counters import LEASE_SHARE
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.picture import Limit, Metric
from gateway.snapshot.principal import Principal
from gateway.tests.valkey_server import ValkeyServer


@pytest.fixture
def valkey(tmp_path):
    server = ValkeyServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start(valkey):
    started: list[subprocess.Popen[str]] = []

    def start_one(**orders: Any) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "gateway.limits.tests.drive_limit", valkey.url, json.dumps(orders)]
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def driven(drivers: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Let all drivers begin at one instant, once the last is ready, and return what each of them asked and got."""
    assert [driver.stdout.readline().strip() for driver in drivers] == ["ready"] * len(drivers)
    begins_at = time.monotonic() + 0.2
    for driver in drivers:
        driver.stdin.write(f"{begins_at}\n")
        driver.stdin.flush()
    return [json.loads(driver.communicate(timeout=60)[0]) for driver in drivers]


def exceeded_most(admitted: list[tuple[float, int]], amount: float, rate: float) -> float:
    """Return by how much burst plus refill was exceeded in the worst of all windows."""
    instants = [instant for instant, _ in admitted]
    counts = [0, *itertools.accumulate(count for _, count in admitted)]
    worst = 0.0
    for first, instant in enumerate(instants):
        for window_s in (0.001, 0.01, 0.1, 0.5, 1, 2, 4, 8):
            last = bisect.bisect_right(instants, instant + window_s)
            worst = max(worst, counts[last] - counts[first] - amount - rate * window_s)
    return worst


@pytest.mark.parametrize(
    "ways", [("steady", "steady"), ("bursts", "bursts"), ("steady", "bursts", "churn")], ids="-".join
)
def test_shared_limit_is_exceeded_by_one_lease_a_process_at_most_and_used_in_full(start, ways):
    amount, per, lasts_s = 150, 1.0, 4.0
    orders = {"metric": "messages_in", "amount": amount, "per": per, "lasts_s": lasts_s}
    results = driven([start(name=f"p{n}", how=how, **orders) for n, how in enumerate(ways)])
    admitted = sorted((instant, count) for result in results for instant, count in result["admitted"])
    total, rate = sum(count for _, count in admitted), amount / per
    allowed = amount + rate * (admitted[-1][0] - admitted[0][0])
    assert sum(result["asked"] for result in results) > 1.2 * allowed, "the test must ask for more than is allowed"
    assert exceeded_most(admitted, amount, rate) <= len(ways) * amount * LEASE_SHARE
    assert total <= allowed + len(ways) * amount * LEASE_SHARE
    assert total >= 0.95 * allowed


def test_tokens_reserved_and_returned_on_several_processes_are_used_in_full_and_no_more(start):
    amount, per, lasts_s, processes = 400, 1.0, 4.0, 2
    orders = {"metric": "tokens_out", "amount": amount, "per": per, "lasts_s": lasts_s}
    results = driven([start(name=f"p{n}", how="reserve", **orders) for n in range(processes)])
    admitted = sorted((instant, count) for result in results for instant, count in result["admitted"])
    total = sum(count for _, count in admitted)
    allowed = amount + amount / per * (admitted[-1][0] - admitted[0][0])
    assert sum(result["asked"] for result in results) > 1.2 * allowed, "the test must ask for more than is allowed"
    assert exceeded_most(admitted, amount, amount / per) <= processes * amount * LEASE_SHARE
    assert total >= 0.95 * allowed


async def test_a_killed_process_frees_its_slots_when_their_lease_ends_and_not_before(start, valkey, monkeypatch):
    slot_s, amount = 3.0, 4
    monkeypatch.setattr("gateway.limits.store.SLOT_S", slot_s)
    holder = start(
        name="holder", how="hold", metric="open_connections", amount=amount, per=None, slot_s=slot_s, beat_s=1.0,
        until=time.monotonic() + 60,
    )  # fmt: skip
    assert holder.stdout.readline().strip() == str(amount)
    redis = Redis.from_url(valkey.url)
    limiter = Limiter(redis, owner="other", timeout_s=20)
    caller = Principal("acme", "k", "gold", limits=(Limit(Metric.OPEN_CONNECTIONS, amount),))

    async def is_free() -> bool:
        try:
            await limiter.admit(Call(Protocol.SSE, "/x", "192.0.2.1", principal=caller))
        except Refused:
            return False
        return True

    ends_at = time.monotonic() + 2 * slot_s
    while time.monotonic() < ends_at:
        assert not await is_free(), "a slot of a living process was given away"
    holder.kill()
    holder.wait()
    ends_at = time.monotonic() + slot_s + 5
    while not await is_free():
        assert time.monotonic() < ends_at, "the slots of a dead process were not freed"
    assert [await is_free() for _ in range(amount)] == [True] * (amount - 1) + [False]
    await limiter.stop()
    await redis.aclose()
