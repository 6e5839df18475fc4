"""WebSocket load on ``/v1/stream``: echoes, and fan-out to many subscribers. Runs as a process of its own core."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import picows
import uvloop

PING = b'{"type":"ping"}'
PIPELINED = 8


class Echo(picows.WSListener):
    """Keeps a few pings under way and counts the pongs."""

    def __init__(self) -> None:
        self.pongs = 0

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Answer each pong with the next ping; the welcome starts them."""
        if frame.msg_type is not picows.WSMsgType.TEXT:
            return
        if frame.get_payload_as_bytes().startswith(b'{"type":"welcome"'):
            for _ in range(PIPELINED):
                transport.send(picows.WSMsgType.TEXT, PING)
            return
        self.pongs += 1
        transport.send(picows.WSMsgType.TEXT, PING)


class Subscriber(picows.WSListener):
    """Subscribes to one channel and counts its events."""

    def __init__(self, channel: str) -> None:
        self._subscribe = json.dumps({"type": "subscribe", "channel": channel}).encode()
        self.ready = asyncio.get_running_loop().create_future()
        self.events = 0
        self.last_at = 0.0

    def on_ws_connected(self, transport: Any) -> None:
        """Subscribe at once."""
        transport.send(picows.WSMsgType.TEXT, self._subscribe)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Count events; the server's word that it has subscribed makes us ready."""
        payload = frame.get_payload_as_bytes()
        if payload.startswith(b'{"type":"event"'):
            self.events += 1
            self.last_at = time.perf_counter()
        elif payload.startswith(b'{"type":"subscribed"'):
            self.ready.set_result(None)


async def connect(url: str, key: str, listener: picows.WSListener) -> Any:
    """Open one socket with a key."""
    transport, _ = await picows.ws_connect(lambda: listener, url, extra_headers={"X-API-Key": key})
    return transport


async def echo(url: str, key: str, connections: int, seconds: float) -> dict[str, float]:
    """Echo over so many sockets for so long. Gives echoes a second."""
    listeners = [Echo() for _ in range(connections)]
    transports = [await connect(url, key, listener) for listener in listeners]
    await asyncio.sleep(1)
    before, began = sum(listener.pongs for listener in listeners), time.perf_counter()
    await asyncio.sleep(seconds)
    done = sum(listener.pongs for listener in listeners) - before
    took_s = time.perf_counter() - began
    for transport in transports:
        transport.disconnect()
    return {"per_s": done / took_s}


async def fan_out(url: str, key: str, connections: int, events: int) -> dict[str, float]:
    """Publish so many events to so many subscribers, as fast as they are stored. Gives deliveries a second."""
    channel = "trades"
    listeners = [Subscriber(channel) for _ in range(connections)]
    transports = [await connect(url, key, listener) for listener in listeners]
    await asyncio.gather(*(listener.ready for listener in listeners))
    publisher = await connect(url, key, picows.WSListener())
    began = time.perf_counter()
    for number in range(events):
        frame = {"type": "publish", "channel": channel, "data": {"symbol": "ACME", "price": 104.2, "number": number}}
        publisher.send(picows.WSMsgType.TEXT, json.dumps(frame).encode())
        # No more is under way than a slow subscriber may have waiting.
        while number - min(listener.events for listener in listeners) > 400:
            await asyncio.sleep(0.001)
    while min(listener.events for listener in listeners) < events and time.perf_counter() - began < 60:
        await asyncio.sleep(0.005)
    delivered = sum(listener.events for listener in listeners)
    took_s = max(listener.last_at for listener in listeners) - began
    for transport in [*transports, publisher]:
        transport.disconnect()
    return {"per_s": delivered / took_s, "delivered": delivered, "expected": events * connections}


def main() -> None:
    """Run one measurement: ``echo|fan_out URL KEY CONNECTIONS AMOUNT``; prints JSON."""
    kind, url, key, connections, amount = sys.argv[1:]
    measure = {"echo": echo, "fan_out": fan_out}[kind]
    print(json.dumps(uvloop.run(measure(url, key, int(connections), int(amount)))))


if __name__ == "__main__":
    main()
