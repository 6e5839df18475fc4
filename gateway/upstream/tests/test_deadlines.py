"""Deadlines are enforced when they pass, by one timer for all."""

import time

import pytest

from gateway.snapshot.documents import Timeouts
from gateway.tests.http_plane import echo, upstream_that
from gateway.tests.identity_provider import config
from gateway.upstream.client import UpstreamClient
from gateway.upstream.deadlines import SWEEP_MAX_S, SWEEP_MIN_S, Deadlines
from gateway.upstream.origin import Origin


class Waiting:
    def __init__(self, deadline=None):
        self.deadline = deadline
        self.expired = False

    def expire(self):
        self.deadline, self.expired = None, True


@pytest.fixture
def deadlines():
    return Deadlines(lambda now: None)


@pytest.mark.parametrize(
    ("ahead_s", "next_s"), [(0.1, 0.1), (0.01, SWEEP_MIN_S), (7, SWEEP_MAX_S), (None, SWEEP_MAX_S)]
)
def test_the_next_sweep_is_at_the_nearest_deadline(deadlines, ahead_s, next_s):
    deadlines.timed.update({Waiting(), Waiting(1009), Waiting(None if ahead_s is None else 1000 + ahead_s)})
    assert deadlines.sweep(1000) == pytest.approx(next_s)


@pytest.mark.parametrize("timeout_s", [0.1, 0.3, 1.0, 1.3, 60.0])
@pytest.mark.parametrize("set_after_s", [0.0, 0.2, 0.45, 0.99])
def test_a_deadline_that_is_set_between_two_sweeps_is_enforced_on_time(deadlines, timeout_s, set_after_s):
    deadlines.shorten(min(timeout_s, SWEEP_MAX_S))
    now, waiting, set_at = 1000.0, Waiting(), 1000 + set_after_s
    deadlines.timed.add(waiting)
    while not waiting.expired:
        then = now + deadlines.sweep(now)
        if now <= set_at < then:
            waiting.deadline = set_at + timeout_s
        if not waiting.expired:
            now = then
    assert set_at + timeout_s <= now <= set_at + timeout_s + SWEEP_MIN_S


async def test_a_shorter_timeout_brings_the_next_sweep_forward():
    async with upstream_that(echo) as behind:
        client = UpstreamClient(config())
        connection = await client.lend(Origin.of(behind.url))
        client.take_back(connection)
        assert client._deadlines.runs_at > time.monotonic() + 0.3
        client.take_back(await client.lend(connection.origin, Timeouts(idle_s=0.1)))
        assert client._deadlines.runs_at <= time.monotonic() + 0.1
        await client.close()
