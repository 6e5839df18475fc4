"""A simulated field sensor: publishes temperature readings over MQTT, through the governed listener."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from datetime import UTC, datetime

import orjson

from apimgmt.own_clients import first_bytes
from gateway.wire.mqtt import codec
from gateway.wire.mqtt.packets import V311, Connect, Publish

DEVICES = ("demo-1", "demo-2", "demo-3")
EVERY_S = 1.0
TRY_AGAIN_S = 1.0
DAY_S = 86_400
KEEP_ALIVE_S = 30


def main(host: str, port: int, key: str) -> None:
    """Publish until the process is stopped; reconnect after a lost connection."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_publish_for_ever(host, port, key))


def reading(device: str, at_s: float) -> bytes:
    """Return a reading: a slow wave over the day with a fast one on top."""
    value = 18 + 6 * math.sin(at_s / DAY_S * 2 * math.pi) + math.sin(at_s / 20 + len(device) * hash(device) % 7)
    reading = {
        "deviceId": device,
        "value": round(value, 2),
        "unit": "C",
        "timestamp": datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds"),
    }
    return orjson.dumps(reading)


async def _publish_for_ever(host: str, port: int, key: str) -> None:
    while True:
        try:
            await _publish(host, port, key)
        except OSError:
            await asyncio.sleep(TRY_AGAIN_S)


async def _publish(host: str, port: int, key: str) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(first_bytes(writer.get_extra_info("sockname")[0]))
        writer.write(codec.connect(Connect(V311, "demo-sensor", True, KEEP_ALIVE_S, "key", key.encode())))
        connack = await reader.readexactly(4)
        if connack[3] != 0:
            raise ConnectionRefusedError(f"CONNACK {connack[3]}")
        while True:
            for device in DEVICES:
                topic = f"sensors/{device}/temperature"
                writer.write(codec.publish(V311, Publish(topic, reading(device, time.time()))))
            await writer.drain()
            if reader.at_eof():
                raise ConnectionResetError("the listener hung up")
            await asyncio.sleep(EVERY_S)
    finally:
        writer.close()
