"""One process that drives a shared limit: ``python -m gateway.limits.tests.drive_limit URL ORDERS``."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from redis.asyncio import Redis

import gateway.limiter
import gateway.limits.store
from gateway.call import Call
from gateway.limiter import Limiter
from gateway.protocol import Protocol
from gateway.refusals import Refused
from gateway.snapshot.picture import Limit, Metric
from gateway.snapshot.principal import Principal


class Driver:
    """Asks as its orders say, and keeps account of what was admitted when (monotonic: one clock for all processes)."""

    def __init__(self, redis: Redis, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.redis = redis
        self.limiter = Limiter(redis, owner=orders["name"])
        limit = Limit(Metric(orders["metric"]), orders["amount"], orders["per"])
        self.principal = Principal("acme", orders["name"], "gold", limits=(limit,))
        self.admitted: list[tuple[float, int]] = []
        self.requests = 0

    def call(self) -> Call:
        return Call(Protocol.WEBSOCKET, "/x", "192.0.2.1", principal=self.principal)

    async def ask(self, call: Call) -> None:
        self.requests += 1
        try:
            if not self.limiter.charge_now(call, messages_in=1):
                await self.limiter.charge(call, messages_in=1)
        except Refused:
            return
        self.admitted.append((time.monotonic(), 1))

    async def steady(self) -> None:
        call = self.call()
        while time.monotonic() < self.orders["until"]:
            await self.ask(call)
            await asyncio.sleep(0.002)

    async def bursts(self) -> None:
        call = self.call()
        while time.monotonic() < self.orders["until"]:
            await asyncio.gather(*(self.ask(call) for _ in range(60)))
            await asyncio.sleep(0.1)

    async def churn(self) -> None:
        """Connect anew for every few messages, and restart the whole limiter now and then."""
        while time.monotonic() < self.orders["until"]:
            for _ in range(30):
                call = self.call()
                await self.limiter.admit(call)
                for _ in range(5):
                    await self.ask(call)
                self.limiter.released(call)
                await asyncio.sleep(0.01)
            await self.limiter.stop()
            self.limiter = Limiter(self.redis, owner=self.orders["name"])
            await self.limiter.start()

    async def reserve(self) -> None:
        """Make calls that reserve eight tokens each and use four, many at once."""

        async def calls() -> None:
            call = self.call()
            while time.monotonic() < self.orders["until"]:
                self.requests += 4
                try:
                    reserved = await self.limiter.reserve(call, tokens_in=0, tokens_out=8)
                except Refused as refused:
                    await asyncio.sleep(min(refused.retry_after_s or 0.01, 0.05))
                    continue
                reserved_at = time.monotonic()
                await asyncio.sleep(0.01)
                self.limiter.correct(reserved, tokens_in=0, tokens_out=4)
                self.admitted.append((reserved_at, 4))

        await asyncio.gather(*(calls() for _ in range(4)))

    async def hold(self) -> None:
        """Open as many connections as are allowed, say how many, and keep them."""
        count = 0
        try:
            while True:
                await self.limiter.admit(self.call())
                count += 1
        except Refused:
            print(count, flush=True)  # noqa: T201  # the test reads it
        while time.monotonic() < self.orders["until"]:
            await asyncio.sleep(0.1)


async def drive(url: str, orders: dict[str, Any]) -> None:
    gateway.limits.store.SLOT_S = orders.get("slot_s", gateway.limits.store.SLOT_S)
    gateway.limiter.BEAT_S = orders.get("beat_s", gateway.limiter.BEAT_S)
    redis = Redis.from_url(url)
    driver = Driver(redis, orders)
    await driver.limiter.start()
    await driver.limiter.store.ping()
    if "lasts_s" in orders:
        # All drivers begin at one instant, which is stated once the last of them is ready.
        print("ready", flush=True)  # noqa: T201  # the test reads it
        begins_at = float(sys.stdin.readline())
        orders["until"] = begins_at + orders["lasts_s"]
        await asyncio.sleep(max(0.0, begins_at - time.monotonic()))
    await getattr(driver, orders["how"])()
    await driver.limiter.stop()
    await redis.aclose()
    print(json.dumps({"asked": driver.requests, "admitted": driver.admitted}), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(drive(sys.argv[1], json.loads(sys.argv[2])))
