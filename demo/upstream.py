"""The demo's upstream: quotes over REST, market data over WebSocket, a model. It knows nothing of keys or limits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uvicorn

from demo.model import complete

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

TICK_S = 0.5
ECHO_MAX_BYTES = 10 * 1024 * 1024


class Market:
    """Prices that walk at random."""

    def __init__(self) -> None:
        self._prices = {"ACME": 104.2, "GLOBEX": 58.75, "INITECH": 12.4, "UMBRELLA": 231.0}

    def symbols(self) -> list[str]:
        """Return the traded symbols."""
        return list(self._prices)

    def quote(self, symbol: str) -> dict[str, Any] | None:
        """Return the current price, or None for an unknown symbol."""
        if symbol not in self._prices:
            return None
        # A demo's prices are no secret: the plain generator will do.
        price = self._prices[symbol] * random.uniform(0.998, 1.002)  # noqa: S311
        self._prices[symbol] = price
        return {"symbol": symbol, "price": round(price, 2), "at": round(time.time(), 3)}


market = Market()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection (ASGI)."""
    if scope["type"] == "http":
        await _http(scope, receive, send)
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"].rstrip("/")
    if path == "/ai/chat/completions":
        await complete(await _body(receive), send)
        return
    if path == "/quotes":
        answer: Any = [market.quote(symbol) for symbol in market.symbols()]
    elif path.startswith("/quotes/"):
        answer = market.quote(path.removeprefix("/quotes/").upper())
    elif path == "/echo":
        answer = await _echo(scope, receive)
    else:
        answer = None
    status = 200 if answer is not None else 404
    body = orjson.dumps(answer if answer is not None else {"error": f"nothing at {path}"})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")[: ECHO_MAX_BYTES - len(body)]
        if not message.get("more_body"):
            return bytes(body)


async def _echo(scope: Scope, receive: Receive) -> dict[str, Any]:
    """Echo the request, so that a caller sees what the gateway passes on."""
    body = await _body(receive)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "headers": headers,
        "body": body.decode(errors="replace"),
    }


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Send a tick every half second, and echo each message."""
    await receive()
    if scope["path"] != "/market-data":
        await send({"type": "websocket.close", "code": 4404})
        return
    await send({"type": "websocket.accept"})
    ticking = asyncio.create_task(_tick(send))
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await ticking


async def _tick(send: Send) -> None:
    while True:
        for symbol in market.symbols():
            await send({"type": "websocket.send", "text": orjson.dumps(market.quote(symbol)).decode()})
        await asyncio.sleep(TICK_S)


def main(sock: socket.socket) -> None:
    """Serve on a listening socket until the process is stopped."""
    config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan="off", ws="websockets-sansio")
    uvicorn.Server(config).run(sockets=[sock])
