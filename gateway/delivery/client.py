"""The HTTP client for URLs of consumers: never connects to internal networks, follows no redirect, is bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gateway.durable.webhook import WebhookResponse
from gateway.refusals import Reason, Refused
from gateway.upstream.client import Response, TooLong, UpstreamClient
from gateway.upstream.connection import UpstreamBroken
from gateway.upstream.origin import Origin
from gateway.upstream.outbound import Endpoint, is_inner

if TYPE_CHECKING:
    from gateway.config import Config

RESPONSE_MAX_BYTES = 64 * 1024
KEPT_BYTES = 1024
"""How much of a response body is kept for inspection."""

RESOLVER_THREADS = 64

Addresses = list[tuple[int, Any]]
Resolve = Callable[[str, int], Awaitable[Addresses]]


class SendFailed(Exception):
    """The message was not delivered; the text may be shown to the owner of the subscription."""

    def __init__(self, message: str, response: WebhookResponse | None = None) -> None:
        super().__init__(message)
        self.response = response


class SystemResolver:
    """Resolves names with the system's resolver, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolver")
        self._pending: dict[tuple[str, int], asyncio.Future[Any]] = {}

    async def __call__(self, host: str, port: int) -> Addresses:
        """Resolve a name. Concurrent requests for one name share a thread, also where it hangs. Raises OSError."""
        pending = self._pending.get((host, port))
        if pending is None:
            pending = asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
            self._pending[host, port] = pending
            pending.add_done_callback(lambda _: self._pending.pop((host, port), None))
        return [(family, address) for family, *_, address in await asyncio.shield(pending)]

    def close(self) -> None:
        """Let the threads end; does not wait for a name that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class WebhookClient(UpstreamClient):
    """Connects to the very address that was checked, so that DNS rebinding cannot bypass the check."""

    def __init__(self, config: Config, resolve: Resolve | None = None) -> None:
        super().__init__(config)
        self._allowed_networks = config.outbound_allowed_networks
        self._timeout_s = config.webhook_timeout_s
        self._system_resolver = SystemResolver()
        self._resolve = resolve or self._system_resolver

    async def close(self) -> None:
        """Close all connections, and let the resolver's threads end."""
        await super().close()
        self._system_resolver.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> WebhookResponse:
        """Post a message once and return the response, within the deadline for both. Raises SendFailed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return _shortened(await self.fetch("POST", url, headers, body, max_bytes=RESPONSE_MAX_BYTES))
        except TooLong as error:
            message = f"The response is longer than {RESPONSE_MAX_BYTES} bytes."
            raise SendFailed(message, _shortened(error.response)) from None
        except TimeoutError:
            raise SendFailed(f"No complete response within {self._timeout_s:g} s.") from None
        except Refused as refused:
            raise SendFailed(_explain(refused)) from None
        except (UpstreamBroken, OSError) as error:
            raise SendFailed(f"The connection failed: {str(error) or type(error).__name__}.") from None

    async def addresses(self, origin: Origin) -> list[Endpoint]:
        """Resolve a host to its public addresses. Raises OSError, and Refused where it has only internal ones."""
        found = [(str(host), int(port)) for _, (host, port, *_) in await self._resolve(origin.host, origin.port)]
        usable = [
            address
            for address in found
            if not is_inner(address[0], self._allowed_networks) and self._may_be_reached(*address)
        ]
        if found and not usable:
            raise Refused(Reason.FORBIDDEN, cause="inner-address")
        return usable


_EXPLANATIONS = {
    "inner-address": "The URL's host is in an internal network, which is not called.",
    "upstream-connect-timeout": "No connection within the time limit.",
    "upstream-unreachable": (
        "No connection: the host does not answer, its name cannot be resolved, or its certificate is not valid."
    ),
}


def _explain(refused: Refused) -> str:
    return _EXPLANATIONS.get(refused.cause, refused.detail)


def _shortened(response: Response) -> WebhookResponse:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    return WebhookResponse(response.status, headers, response.body[:KEPT_BYTES])
