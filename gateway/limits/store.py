"""The limit store: token buckets and slots of open connections that all processes share, in Redis.

Each command is one atomic script that reads the store's clock. Commands queue up and are sent in order, one batch per
round trip; each is answered within the deadline, with None where the store is unavailable. Cancelling a caller does
not cancel its command, so that no caller ever reads the reply of another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from gateway.limits.counters import LEFT_SHARE, TAIL_S, Terms

logger = logging.getLogger(__name__)

BATCH_MAX = 256
QUEUE_MAX = 10_000
PAUSE_S = 1.0
"""After a failure, no command is sent for this long."""
SLOT_S = 24.0
"""The lifetime of a slot of an open connection without a heartbeat."""

LEASE = """
-- One bucket: KEYS[1] {used, at}. ARGV: rate per second (0: a calendar month), size, returned, short, enough, want,
-- ahead (see Terms).
-- Returns: tokens granted, tokens left, seconds until the month ends (0 for a bucket).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local rate, size, back = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local short, enough, want, ahead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local kept = redis.call('HMGET', KEYS[1], 'used', 'at')
local used, at = tonumber(kept[1] or 0), tonumber(kept[2] or now)
local reset, keep = 0, 0

local function month_starts(year, month)
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local shifted = month > 2 and month - 3 or month + 9
  local day = math.floor((153 * shifted + 2) / 5)
  return (era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + day - 719468) * 86400
end

local function month_of(seconds)
  local day = math.floor(seconds / 86400) + 719468
  local era = math.floor(day / 146097)
  local d = day - era * 146097
  local y = math.floor((d - math.floor(d / 1460) + math.floor(d / 36524) - math.floor(d / 146096)) / 365)
  local shifted = math.floor((5 * (d - (365 * y + math.floor(y / 4) - math.floor(y / 100))) + 2) / 153)
  local month = shifted < 10 and shifted + 3 or shifted - 9
  return y + era * 400 + (month <= 2 and 1 or 0), month
end

if rate == 0 then
  local year, month = month_of(now / 1000000)
  local this = year * 12 + month
  -- A clock that is set back over the end of a month, and passes it again, must not start that month twice.
  if this > at then used = 0 end
  if this > at or at > this + 1 then at = this end
  reset = month_starts(year + math.floor(month / 12), month % 12 + 1) - now / 1000000
  keep = reset + 86400
else
  if now > at then used = math.max(0, used - rate * (now - at) / 1000000) end
  at = now
end
used = math.max(0, used - back)
local granted, left = 0, size - used
if want + ahead > 0 and left >= enough - 0.000001 then
  ahead = math.min(ahead, math.max(left * LEFT_SHARE, rate * TAIL_S))
  granted = math.max(short, math.floor(math.min(want + ahead, left)))
  used = used + granted
end
if rate > 0 then keep = used / rate + 60 end
redis.call('HSET', KEYS[1], 'used', string.format('%.17g', used), 'at', string.format('%.17g', at))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(keep, 100000000) * 1000))
return {string.format('%.17g', granted), string.format('%.17g', size - used), string.format('%.6f', reset)}
""".replace("LEFT_SHARE", str(LEFT_SHARE)).replace("TAIL_S", str(TAIL_S))

NO_FUTURE = """
-- A slot that lapses later than one lifetime from now was taken before the clock was set back: shorten it.
for _, slot in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now + life, '+inf')) do
  redis.call('ZADD', KEYS[1], now + life, slot)
end
"""

TAKE = """
-- One open slot: KEYS[1] sorted set of slots by when they lapse. ARGV: amount, lifetime in ms, slot, forced.
-- Returns: 1 if taken, how many others were open.
local time = redis.call('TIME')
local now, life = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
NO_FUTURE
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREM', KEYS[1], ARGV[3])
local open = redis.call('ZCARD', KEYS[1])
if open >= tonumber(ARGV[1]) and ARGV[4] ~= '1' then return {0, open} end
redis.call('ZADD', KEYS[1], now + life, ARGV[3])
redis.call('PEXPIRE', KEYS[1], 2 * life)
return {1, open}
""".replace("NO_FUTURE", NO_FUTURE)

RENEW = """
-- Heartbeat: KEYS[1] sorted set of slots. ARGV: lifetime in ms, slots. Returns: how many are open.
local time = redis.call('TIME')
local now, life = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + life, ARGV[i]) end
NO_FUTURE
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 2 * life)
return redis.call('ZCARD', KEYS[1])
""".replace("NO_FUTURE", NO_FUTURE)

SOME = """
-- A random sample of slots: KEYS[1] sorted set. ARGV: lifetime in ms, size of the sample.
-- Returns: how many are open; then each slot of the sample, and its age in ms.
local time = redis.call('TIME')
local now, life = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
NO_FUTURE
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local answer = {redis.call('ZCARD', KEYS[1])}
local some = redis.call('ZRANDMEMBER', KEYS[1], ARGV[2], 'WITHSCORES')
for i = 1, #some, 2 do
  answer[#answer + 1] = some[i]
  answer[#answer + 1] = string.format('%.0f', now + life - tonumber(some[i + 1]))
end
return answer
""".replace("NO_FUTURE", NO_FUTURE)

SCRIPTS = {sha1(text.encode(), usedforsecurity=False).hexdigest(): text for text in (LEASE, TAKE, RENEW, SOME)}
LEASE_SHA, TAKE_SHA, RENEW_SHA, SOME_SHA = SCRIPTS

Arguments = tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """The shared bucket's answer: the tokens leased, those left, and the seconds until its month ends (or 0)."""

    tokens: float
    left: float
    reset_s: float


@dataclass(slots=True)
class Command:
    """One command to the store, and where its reply goes."""

    words: Arguments
    reply: asyncio.Future[Any]


class LimitStore:
    """The buckets and slots that all processes share. No call raises; None means that the store is unavailable."""

    def __init__(
        self,
        redis: Redis,
        *,
        timeout_s: float = 0.5,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        on_available: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._clock = clock
        self._on_available = on_available
        self._queue: deque[Command] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._paused_until = 0.0
        self.is_unavailable = False
        self.calls = 0
        """Round trips so far."""

    @property
    def pause_left_s(self) -> float:
        """How many seconds remain until commands are sent again after a failure."""
        return max(0.0, self._paused_until - self._clock())

    async def lease(self, key: str, rate: float, size: float, terms: Terms, *, back: float = 0) -> Granted | None:
        """Lease tokens from a shared bucket; first, return ``back`` tokens to it."""
        numbers = (rate, size, back, terms.short, terms.enough, terms.want, terms.ahead)
        reply = await self._submit("EVALSHA", LEASE_SHA, 1, key, *map(repr, numbers))
        return None if reply is None else Granted(*(float(number) for number in reply))

    async def take_slot(
        self, key: str, slot: str, amount: float, *, life_s: float | None = None, forced: bool = False
    ) -> tuple[bool, int] | None:
        """Take a slot for ``life_s``, by default ``SLOT_S``, where fewer than ``amount`` are open, or ``forced``.

        Returns whether it was taken, and how many others are open.
        """
        reply = await self._submit(
            "EVALSHA", TAKE_SHA, 1, key, repr(amount), int((life_s or SLOT_S) * 1000), slot, int(forced)
        )
        return None if reply is None else (bool(reply[0]), int(reply[1]))

    async def renew_slots(self, key: str, slots: Sequence[str], *, life_s: float | None = None) -> int | None:
        """Extend the lifetime of these slots; return how many slots are open, on all processes."""
        reply = await self._submit("EVALSHA", RENEW_SHA, 1, key, int((life_s or SLOT_S) * 1000), *slots)
        return None if reply is None else int(reply)

    async def sample_slots(self, key: str, life_s: float, most: int) -> tuple[int, dict[str, float]] | None:
        """Return how many slots are open, and the age in seconds of at most ``most`` of them, chosen at random."""
        reply = await self._submit("EVALSHA", SOME_SHA, 1, key, int(life_s * 1000), most)
        if reply is None:
            return None
        return int(reply[0]), {
            slot.decode(): int(age) / 1000 for slot, age in zip(reply[1::2], reply[2::2], strict=True)
        }

    def drop_slot(self, key: str, *slots: str) -> asyncio.Future[Any]:
        """Free slots; where the store is unavailable they lapse after their lifetime."""
        return self._submit("ZREM", key, *slots)

    async def ping(self) -> bool:
        """Return whether the store answers; calls ``on_available`` where it did not before."""
        return await self._submit("PING") is not None

    async def stop(self) -> None:
        """Wait until queued commands are sent, within the deadline."""
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=2 * self._timeout_s)

    def _submit(self, *words: str | int | float) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.pause_left_s > 0 or len(self._queue) >= QUEUE_MAX:
            reply.set_result(None)
            return reply
        self._queue.append(Command(words, reply))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_queued(), name="limit store")
        return reply

    async def _send_queued(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            try:
                async with asyncio.timeout(self._timeout_s):
                    replies = await self._exchange([command.words for command in batch])
            except (RedisError, OSError, TimeoutError) as fault:
                self._fail(fault, [*batch, *self._queue])
                self._queue.clear()
            except BaseException:
                _settle([*batch, *self._queue], None)
                self._queue.clear()
                raise
            else:
                self._succeed(batch, replies)

    async def _exchange(self, commands: list[Arguments]) -> list[Any]:
        """Send commands in one round trip. Where a script is missing, load all scripts and repeat what failed."""
        replies = await self._pipelined(commands)
        failed = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if failed:
            await self._pipelined([("SCRIPT LOAD", text) for text in SCRIPTS.values()])
            again = await self._pipelined([commands[at] for at in failed])
            for at, reply in zip(failed, again, strict=True):
                replies[at] = reply
        return replies

    async def _pipelined(self, commands: list[Arguments]) -> list[Any]:
        self.calls += 1
        async with self._redis.pipeline(transaction=False) as pipeline:
            for words in commands:
                pipeline.execute_command(*words)
            return list(await pipeline.execute(raise_on_error=False))

    def _succeed(self, batch: list[Command], replies: list[Any]) -> None:
        fault = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if fault is not None:
            self._fail(fault, [])
        elif self.is_unavailable:
            self.is_unavailable = False
            logger.warning("the limit store is available again")
            self._on_available()
        for command, reply in zip(batch, replies, strict=True):
            _settle([command], None if isinstance(reply, Exception) else reply)

    def _fail(self, fault: Exception, commands: list[Command]) -> None:
        self._paused_until = self._clock() + self._pause_s
        if not self.is_unavailable:
            self.is_unavailable = True
            logger.warning("the limit store is unavailable: %s: %s", type(fault).__name__, fault)
        _settle(commands, None)


def _settle(commands: list[Command], reply: Any) -> None:
    for command in commands:
        if not command.reply.done():
            command.reply.set_result(reply)
