from __future__ import annotations

import asyncio
import time

import pytest

from gateway.call import Call
from gateway.limiter import Limiter
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.picture import Limit, Metric
from gateway.snapshot.principal import Principal

REQUESTS = Limit(Metric.REQUESTS, 5, 10.0)


MESSAGES = Limit(Metric.MESSAGES_IN, 10, 60.0)


OPEN = Limit(Metric.OPEN_CONNECTIONS, 2)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


def principal(*limits: Limit, key: str = "k1", consumer: str = "acme") -> Principal:
    return Principal(consumer, key, "gold", limits=limits)


def call(caller: Principal, protocol: Protocol = Protocol.WEBSOCKET, ip: str = "192.0.2.1") -> Call:
    return Call(protocol, "/x", ip, principal=caller)


def reported(limiter: Limiter, what: str) -> dict[tuple[str, str], float]:
    """Return the tallies for usage, by limit and consumer."""
    records = limiter.usage_records(with_levels=False)
    return {(record["name"], record["consumer"]): record[what] for record in records if record[what]}


async def refusal(attempt) -> Refused:
    with pytest.raises(Refused) as caught:
        await attempt
    return caught.value


async def admitted(limiter: Limiter, calls: list[Call]) -> int:
    answers = await asyncio.gather(*(limiter.admit(one) for one in calls), return_exceptions=True)
    assert all(answer is None or isinstance(answer, Refused) for answer in answers)
    return answers.count(None)
