"""Which connection holds each resumable ticket: one at a time, across all processes, as the shared store records it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from redis.exceptions import RedisError

from gateway.concurrency.stopping import stop_tasks
from gateway.refusals import Reason, Refused

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

RENEW_S = 5.0
"""The interval at which the holds of a process are renewed in the store, and lost ones are noticed."""
TAKE_OVER_S = RENEW_S + 1
"""The longest wait for the connection that held a ticket before."""
RETURN_S = 3600.0
"""When an ``EventSource`` whose ticket was taken over may try again: not while the newer connection is in use."""
RENEWED_AT_ONCE = 500

TAKE = """
-- KEYS[1] {subject, at, stream, holder}. ARGV: stream, holder, now, lifetime in ms.
-- Returns: whether the ticket opens this stream, and its holder before; nothing for a ticket that is no longer kept.
local kept = redis.call('HMGET', KEYS[1], 'subject', 'stream', 'holder')
if not kept[1] then return nil end
if kept[2] and kept[2] ~= ARGV[1] then return {0, ''} end
redis.call('HSET', KEYS[1], 'stream', ARGV[1], 'holder', ARGV[2], 'at', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, kept[3] or ''}
"""
RENEW = """
-- KEYS[1] as above. ARGV: subject, stream, holder, now, lifetime in ms. Returns: whether it still is the holder.
-- A store that was emptied gets its record back.
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'subject', ARGV[1], 'stream', ARGV[2], 'holder', ARGV[3], 'at', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
"""
RELEASE = """
-- KEYS[1] as above. ARGV: holder, now, lifetime in ms.
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'holder')
redis.call('HSET', KEYS[1], 'at', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class Hold:
    """The use of one resumable ticket by one connection, from its handshake to its end."""

    def __init__(self, name: str, subject: bytes, stream: str, holder: str, ended: Callable[[Hold], None]) -> None:
        self.name = name
        self.subject = subject
        self.stream = stream
        self.holder = holder
        self.used_at = time.monotonic()
        """When it was taken or, once it has ended, when that was."""
        self.has_ended = asyncio.Event()
        self.places: Collection[asyncio.Future[Any]] = ()
        """What frees its places in limits, once it has ended."""
        self._ended = ended
        self._is_lost = False
        self._close: Callable[[Refused], None] | None = None

    def bind(self, close: Callable[[Refused], None]) -> None:
        """Close the connection by ``close`` once another one takes the ticket, or now if one already has."""
        self._close = close
        if self._is_lost:
            self.lose()

    def lose(self) -> None:
        """Close the connection: another one has taken the ticket."""
        self._is_lost = True
        if self._close is not None:
            self._close(Refused(Reason.TAKEN_OVER, retry_after_s=RETURN_S))

    def end(self, places: Collection[asyncio.Future[Any]] = ()) -> None:
        """Release the ticket for a resumption, which may begin once ``places`` are free. Never waits, never raises."""
        if not self.has_ended.is_set():
            self.places = places
            self.has_ended.set()
            self._ended(self)


class Others(Interface):
    """The other processes of the data plane."""

    async def serve(self, process: str, give_up: Callable[[str], Awaitable[None]]) -> None:
        """Call ``give_up`` for each holder that another process asks this one to give up."""

    async def request(self, process: str, holder: str, timeout_s: float) -> None:
        """Return once a process has given up a holder, or can no longer, or ``timeout_s`` has passed."""


class TicketHolds:
    """The holds of this process, and how it takes tickets from other processes.

    The store names the holder of each ticket. Its process is asked to close it; where that fails, it notices at the
    next renewal. While the store is unavailable, open connections continue, and a process resumes those that it has
    served itself; when it is available again, the first holder to be renewed is the only one.
    """

    def __init__(self, redis: Redis, timeout_s: float, idle_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._idle_ms = int(idle_s * 1000)
        self._process = secrets.token_hex(8)
        self._take = redis.register_script(TAKE)
        self._renew = redis.register_script(RENEW)
        self._release = redis.register_script(RELEASE)
        self._idle_s = idle_s
        self._held: dict[str, Hold] = {}
        """By holder."""
        self._taking: dict[str, Hold] = {}
        """By holder, too: the store may already name them as holders, and has not replied yet."""
        self._latest: dict[str, Hold] = {}
        """The latest hold of each ticket here, by name: open, or ended less than the idle time ago."""
        self._releasing: set[asyncio.Task[None]] = set()
        self._others: Others | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self, others: Others) -> None:
        """Answer other processes that take over a ticket, and renew what this process holds."""
        self._others = others
        await others.serve(self._process, self._lost)
        self._renewing = asyncio.create_task(self._keep_renewing(), name="ticket holds")

    async def stop(self) -> None:
        """Stop renewing, and wait until the tickets of ended connections are released."""
        await stop_tasks(self._renewing)
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=2 * self._timeout_s)

    def known(self, name: str) -> Hold | None:
        """Return the latest hold of a ticket on this process, until the idle time after its end."""
        hold = self._latest.get(name)
        return hold if hold is not None and self._is_resumable(hold) else None

    async def take(self, name: str, subject: bytes, stream: str) -> Hold | None:
        """Make the caller's connection the holder of a ticket, and wait until the one before it has ended.

        Returns None for a ticket that the store no longer has. Raises Refused ``forbidden`` for one that has opened
        another stream, and ``overloaded`` if the store is unavailable and this process does not know the ticket.
        """
        hold = Hold(name, subject, stream, f"{self._process}.{secrets.token_hex(8)}", self._on_end)
        self._taking[hold.holder] = hold
        try:
            taken = await self._taken(hold)
        finally:
            del self._taking[hold.holder]
        if taken is None:
            return None
        opens, before = taken
        if not opens:
            raise Refused(Reason.FORBIDDEN, "This ticket has opened another stream.", cause="ticket-other-stream")
        self._held[hold.holder] = self._latest[name] = hold
        if before:
            try:
                await self._take_over(before.decode())
            except BaseException:
                hold.end()
                raise
        return hold

    async def _taken(self, hold: Hold) -> Any:
        """Return the reply of the store, or what this process knows itself while the store is unavailable."""
        arguments: list[bytes | str | float] = [hold.stream, hold.holder, time.time(), self._idle_ms]
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._take(keys=[hold.name], args=arguments)
        except (OSError, TimeoutError, RedisError) as error:
            known = self.known(hold.name)
            if known is None:
                raise unchecked() from error
            return [known.stream == hold.stream, b"" if known.has_ended.is_set() else known.holder.encode()]

    async def _take_over(self, holder: str) -> None:
        """End a connection of this or of another process, and wait until it has ended, at most ``TAKE_OVER_S``."""
        process = holder.partition(".")[0]
        if process == self._process:
            await self._lost(holder)
        elif self._others is not None:
            await self._others.request(process, holder, TAKE_OVER_S)

    async def _lost(self, holder: str) -> None:
        hold = self._held.get(holder) or self._taking.get(holder)
        if hold is not None:
            hold.lose()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TAKE_OVER_S):
                    await hold.has_ended.wait()
                    if hold.places:
                        await asyncio.wait(hold.places)

    def _on_end(self, hold: Hold) -> None:
        self._held.pop(hold.holder, None)
        hold.used_at = time.monotonic()
        task = asyncio.create_task(self._released(hold), name="ticket released")
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _released(self, hold: Hold) -> None:
        # Where the store is unavailable, the idle time runs from the last renewal.
        with contextlib.suppress(TimeoutError, OSError, RedisError):
            async with asyncio.timeout(self._timeout_s):
                await self._release(keys=[hold.name], args=[hold.holder, time.time(), self._idle_ms])

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            self._latest = {name: hold for name, hold in self._latest.items() if self._is_resumable(hold)}
            holds = list(self._held.values())
            for first in range(0, len(holds), RENEWED_AT_ONCE):
                with contextlib.suppress(TimeoutError, OSError, RedisError):
                    await self._renew_all(holds[first : first + RENEWED_AT_ONCE])

    async def _renew_all(self, holds: Iterable[Hold]) -> None:
        now = time.time()
        async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipeline:
            renewed = [hold for hold in holds if not hold.has_ended.is_set()]
            for hold in renewed:
                arguments: list[bytes | str | float] = [hold.subject, hold.stream, hold.holder, now, self._idle_ms]
                await self._renew(keys=[hold.name], args=arguments, client=pipeline)
            answers = await pipeline.execute()
        for hold, is_holder in zip(renewed, answers, strict=True):
            if not is_holder:
                hold.lose()

    def _is_resumable(self, hold: Hold) -> bool:
        return not hold.has_ended.is_set() or time.monotonic() - hold.used_at < self._idle_s


def unchecked() -> Refused:
    """Return the refusal of a ticket that cannot be looked up."""
    return Refused(Reason.OVERLOADED, "Tickets cannot be checked right now.", retry_after_s=1)
