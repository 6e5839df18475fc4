"""Accepts the connections of one listening socket, each within the ceilings of its process.

asyncio's own servers accept whatever comes and know no ceilings; without free files, uvloop resets every new
connection. Here accepting pauses instead, and a PROXY header is read before anything else of a connection, so that it
may precede a TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from functools import partial

from gateway.concurrency.log_throttle import LogThrottle
from gateway.concurrency.stopping import stop_soon, stop_tasks
from gateway.config import Config, Network
from gateway.identity.client_address import is_trusted
from gateway.identity.places import plain
from gateway.listening.capacity import Capacity
from gateway.listening.tcp_connections import TcpConnection, nothing
from gateway.wire import proxy_header

logger = logging.getLogger(__name__)

Serve = Callable[[TcpConnection], asyncio.Protocol]
BACKLOG = 4096
ACCEPTED_AT_ONCE = 16
"""Connections accepted before those accepted earlier are served: their keys keep them open."""
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE_S = 0.1
"""How long nothing is accepted for want of files or memory."""
OPENING_S = 0.1
"""How long a connection takes at most from being accepted to its protocol, without a PROXY header."""
SHED_WHEN_OUT_OF_FILES = 16


class Listener:
    """Accepts on one socket until it is closed."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Serve,
        capacity: Capacity,
        *,
        proxies: tuple[Network, ...] = (),
        header_timeout_s: float = 10,
        refusal: bytes = b"",
    ) -> None:
        self._listening = listening
        self._serve = serve
        self._capacity = capacity
        self._connections = capacity.connections
        self._proxies = proxies
        """Networks whose connections begin with a PROXY header."""
        self._header_timeout_s = header_timeout_s
        self._refusal = refusal
        """Sent to a connection that is not accepted."""
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self._throttle = LogThrottle()
        listening.listen(BACKLOG)
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Stop accepting. Connections that are open stay so."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    async def stop(self) -> None:
        """Stop accepting, and close the connections whose PROXY header is still awaited."""
        self.close()
        if self._opening:
            await asyncio.wait(self._opening, timeout=OPENING_S)
        await stop_tasks(*self._opening)

    def _accept(self) -> None:
        for count in range(ACCEPTED_AT_ONCE):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    continue  # this connection failed before it was accepted
                # Without a free file Linux says so even if no connection waits: only the first attempt tells.
                if count == 0:
                    self._pause(error)
                return
            self._open(accepted, address)

    def _open(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        accepted.setblocking(False)
        if not self._connections.may_open(accepted.fileno()):
            with contextlib.suppress(OSError), accepted:
                accepted.send(self._refusal)
            return
        connection = TcpConnection(self._connections, plain(address[0]), address[1])
        has_header = is_trusted(connection.ip, self._proxies)
        if has_header:
            connection.network = connection.own_network = ""
        opening = self._loop.create_task(self._start(accepted, connection, has_header=has_header), name="accept")
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        if has_header:
            connection.close = partial(stop_soon, opening)
        self._connections.join(connection)

    async def _start(self, accepted: socket.socket, connection: TcpConnection, *, has_header: bool) -> None:
        try:
            if has_header:
                await self._read_header(accepted, connection)
            await self._loop.connect_accepted_socket(lambda: self._serve(connection), accepted)
        except proxy_header.MalformedProxyHeader as error:
            self._capacity.malformed_proxy_headers += 1
            if (more := self._throttle.suffix("header")) is not None:
                logger.warning("a PROXY header of %s is malformed: %s%s", connection.ip, error, more)
            _abandon(accepted, connection)
        except OSError:
            _abandon(accepted, connection)
        except asyncio.CancelledError:
            _abandon(accepted, connection)
            raise

    async def _read_header(self, accepted: socket.socket, connection: TcpConnection) -> None:
        """Read a PROXY header, and not one byte of what follows it. Raises MalformedProxyHeader and OSError."""
        try:
            async with asyncio.timeout(self._header_timeout_s):
                start = await self._read(accepted, proxy_header.START_BYTES)
                rest = await self._read(accepted, proxy_header.rest_bytes(start))
        except TimeoutError:
            raise proxy_header.MalformedProxyHeader("it was not complete in time") from None
        connection.close = nothing
        source = proxy_header.source(start, rest)
        if source is not None:
            connection.came_from(*source)
        if connection.is_shed:
            raise ConnectionAbortedError

    async def _read(self, accepted: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await self._loop.sock_recv(accepted, size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a moment: trying again at once would keep this process busy."""
        self._capacity.accept_failures += 1
        if (more := self._throttle.suffix(error.errno)) is not None:
            logger.error("connections cannot be accepted: %s%s", error.strerror, more)
        self._connections.make_room(SHED_WHEN_OUT_OF_FILES)
        self._loop.remove_reader(self._listening)
        self._resuming = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._listening, self._accept)


def listen(
    listening: socket.socket, serve: Serve, capacity: Capacity, config: Config, refusal: bytes = b""
) -> Listener:
    """Listen for callers, and for the proxies that report them in PROXY headers."""
    return Listener(
        listening,
        serve,
        capacity,
        proxies=config.proxy_protocol_from,
        header_timeout_s=config.head_timeout_s,
        refusal=refusal,
    )


def _abandon(accepted: socket.socket, connection: TcpConnection) -> None:
    accepted.close()
    connection.closed()
