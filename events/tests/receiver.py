"""An endpoint of webhooks that does as a test tells it, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from audit.tests.conftest import until


@dataclass(slots=True)
class Message:
    """A message as it came."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def parsed(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        return self.parsed["data"]


@dataclass(slots=True)
class Receiver:
    """Answers each message with what ``answer`` gives: a status, bytes to write, or a coroutine that writes."""

    answer: Callable[[Message], Any] = lambda message: 204
    port: int = 0
    messages: list[Message] = field(default_factory=list)
    in_flight: int = 0
    most_under_way: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def values(self) -> list[Any]:
        return [message.data for message in self.messages]

    async def has(self, count: int, timeout_s: float = 20.0) -> list[Message]:
        """Wait until so many messages have come."""
        await until(lambda: asyncio.sleep(0, len(self.messages) >= count), timeout_s)
        return self.messages

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await self._one(reader, writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        message = Message(head[0].split()[1], headers, await reader.readexactly(int(headers["content-length"])))
        self.messages.append(message)
        self.in_flight += 1
        self.most_under_way = max(self.most_under_way, self.in_flight)
        try:
            answer = self.answer(message)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if callable(answer):
                await answer(writer)
                raise asyncio.IncompleteReadError(b"", None)
        finally:
            self.in_flight -= 1
        writer.write(answer if isinstance(answer, bytes) else plain(answer))
        await writer.drain()


def plain(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"] if status != 204 else ["HTTP/1.1 204 X"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.asynccontextmanager
async def receiving(answer: Callable[[Message], Any] = lambda message: 204):
    """Listen on a free port of this machine."""
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
