"""Sends to addresses that consumers named: never to an inner one, redirects not followed, everything bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gateway.durable.webhook import Answer
from gateway.refusals import Reason, Refused
from gateway.upstream.client import UpstreamClient
from gateway.upstream.connection import Broken, Origin, UpstreamConnection
from gateway.upstream.outbound import is_inner

if TYPE_CHECKING:
    from gateway.config import Config

ANSWER_MAX_BYTES = 64 * 1024
KEPT_BYTES = 1024
"""So much of an answer is kept to be looked at."""

RESOLVERS = 64

_resolvers = ThreadPoolExecutor(RESOLVERS, "resolver")
_asked: dict[tuple[str, int], asyncio.Future[Any]] = {}

Addresses = list[tuple[int, Any]]
Resolve = Callable[[str, int], Awaitable[Addresses]]


class SendFailed(Exception):
    """The message was not taken; its text may be shown to who owns the subscription."""

    def __init__(self, why: str, answer: Answer | None = None) -> None:
        super().__init__(why)
        self.answer = answer


async def resolved(host: str, port: int) -> Addresses:
    """Ask the system's resolver, once at a time of each name: one that hangs takes one thread. Raises OSError."""
    loop = asyncio.get_running_loop()
    asked = _asked.get((host, port))
    if asked is None or asked.get_loop() is not loop:
        asked = loop.run_in_executor(_resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        _asked[host, port] = asked
        asked.add_done_callback(lambda _: _asked.pop((host, port), None))
    return [(family, address) for family, *_, address in await asyncio.shield(asked)]


class WebhookClient(UpstreamClient):
    """Connects to the address that it has looked at, so that a name cannot mean another one meanwhile."""

    def __init__(self, config: Config, resolve: Resolve = resolved) -> None:
        super().__init__(config)
        self._timeout_s = config.webhook_timeout_s
        self._resolve = resolve

    async def send(self, url: str, request: bytes) -> Answer:
        """Send a request in one try, all of it within the deadline. Raises SendFailed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(Origin.of(url), request)
        except TimeoutError:
            raise SendFailed(f"No whole answer within {self._timeout_s:g} s.") from None
        except Refused as refused:
            raise SendFailed(_said(refused)) from None
        except (Broken, OSError) as error:
            raise SendFailed(f"The connection failed: {str(error) or type(error).__name__}.") from None

    async def addresses(self, origin: Origin) -> Addresses:
        """Resolve a host, without inner addresses. Raises OSError, and Refused where it has no others."""
        found = await self._resolve(origin.host, origin.port)
        usable = [
            (family, address) for family, address in found if not is_inner(str(address[0]), self._allowed_networks)
        ]
        if found and not usable:
            raise Refused(Reason.FORBIDDEN, cause="inner-address")
        return usable

    async def _send(self, origin: Origin, request: bytes) -> Answer:
        connection = await self.lend(origin)
        try:
            return await self._exchange(connection, request)
        except Broken:
            if not connection.is_reused or connection.has_begun_to_answer:
                raise
        finally:
            self.take_back(connection)
        # The receiver had closed a kept line: it has not seen the message.
        connection = await self.lend(origin, is_new=True)
        try:
            return await self._exchange(connection, request)
        finally:
            self.take_back(connection)

    async def _exchange(self, connection: UpstreamConnection, request: bytes) -> Answer:
        connection.begin(request, is_head_request=False)
        await connection.head()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in connection.headers}
        kept, size = b"", 0
        while part := await connection.read():
            kept, size = (kept + part)[:KEPT_BYTES], size + len(part)
            if size > ANSWER_MAX_BYTES:
                connection.close()
                answer = Answer(connection.status, headers, kept)
                raise SendFailed(f"The answer holds more than {ANSWER_MAX_BYTES} bytes.", answer)
        return Answer(connection.status, headers, kept)


_WHY = {
    "inner-address": "The URL's host is in an inner network, which is not called.",
    "upstream-connect-timeout": "No connection in time.",
    "upstream-unreachable": (
        "No connection: nobody answers, the name cannot be resolved, or the certificate is not valid for it."
    ),
}


def _said(refused: Refused) -> str:
    return _WHY.get(refused.cause, refused.detail)
