"""The store of shared counters: leases of tokens from shared buckets and slots of open connections, in Redis.

Each command is one atomic script that reads the store's own clock. Commands queue up and go out in order, a batch a
round trip; each has its answer, or None for "away", within the deadline. Whoever waits for an answer may be cancelled:
the command is not, so that no reply is ever read by the wrong caller.
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
"""After a failure the store is left alone for so long."""
SLOT_S = 24.0
"""A slot of an open connection lives so long without a heartbeat."""

LEASE = """
-- One bucket: KEYS[1] {used, at}. ARGV: rate a second (0: a calendar month), size, returned, short, enough, want,
-- ahead (see Terms).
-- Answers: tokens granted, tokens left, seconds until the month ends (0 for a bucket).
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
  -- A clock that is set back over the end of a month and reaches it once more begins no month twice.
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
-- Nothing lapses later than a life from now, but where the clock was set back: who crashed would be counted so long.
for _, slot in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now + life, '+inf')) do
  redis.call('ZADD', KEYS[1], now + life, slot)
end
"""

TAKE = """
-- One open slot: KEYS[1] sorted set of slots by when they lapse. ARGV: amount, milliseconds it lives, slot, forced.
-- Answers: 1 if taken, how many others were open.
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
-- Heartbeat: KEYS[1] sorted set of slots. ARGV: milliseconds they live, slots. Answers: how many are open.
local time = redis.call('TIME')
local now, life = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + life, ARGV[i]) end
NO_FUTURE
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 2 * life)
return redis.call('ZCARD', KEYS[1])
""".replace("NO_FUTURE", NO_FUTURE)

SOME = """
-- Some slots, by chance: KEYS[1] sorted set. ARGV: milliseconds they live, how many.
-- Answers: how many are open; then each of some, and for how many milliseconds it has been there.
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
    """What the shared bucket gave."""

    tokens: float
    left: float
    reset_s: float


@dataclass(slots=True)
class Command:
    """One command on its way to the store."""

    words: Arguments
    answer: asyncio.Future[Any]


class Store:
    """The counters that all processes share. No call raises; None means that the store is away."""

    def __init__(
        self,
        redis: Redis,
        *,
        timeout_s: float = 0.5,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._clock = clock
        self._on_return = on_return
        self._queue: deque[Command] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._away_until = 0.0
        self.is_away = False
        self.calls = 0
        """Round trips made, for tests and metrics."""

    @property
    def pause_left_s(self) -> float:
        """Say in how many seconds it will be asked again."""
        return max(0.0, self._away_until - self._clock())

    async def lease(self, key: str, rate: float, size: float, asked: Terms, *, back: float = 0) -> Granted | None:
        """Lease tokens from a shared bucket, or return some with ``back``."""
        numbers = (rate, size, back, asked.short, asked.enough, asked.want, asked.ahead)
        reply = await self._submit("EVALSHA", LEASE_SHA, 1, key, *map(repr, numbers))
        return None if reply is None else Granted(*(float(number) for number in reply))

    async def take_slot(
        self, key: str, slot: str, amount: float, *, life_s: float | None = None, forced: bool = False
    ) -> tuple[bool, int] | None:
        """Take a slot that lives so long, else ``SLOT_S``.

        Gives whether it was there (or ``forced``), and how many others were taken.
        """
        reply = await self._submit(
            "EVALSHA", TAKE_SHA, 1, key, repr(amount), int((life_s or SLOT_S) * 1000), slot, int(forced)
        )
        return None if reply is None else (bool(reply[0]), int(reply[1]))

    async def renew_slots(self, key: str, slots: Sequence[str], *, life_s: float | None = None) -> int | None:
        """Say that these slots are still taken; gives how many are, on all processes."""
        reply = await self._submit("EVALSHA", RENEW_SHA, 1, key, int((life_s or SLOT_S) * 1000), *slots)
        return None if reply is None else int(reply)

    async def some_slots(self, key: str, life_s: float, most: int) -> tuple[int, dict[str, float]] | None:
        """Say how many slots are taken, and since how many seconds some of them are."""
        reply = await self._submit("EVALSHA", SOME_SHA, 1, key, int(life_s * 1000), most)
        if reply is None:
            return None
        return int(reply[0]), {
            slot.decode(): int(age) / 1000 for slot, age in zip(reply[1::2], reply[2::2], strict=True)
        }

    def drop_slot(self, key: str, *slots: str) -> asyncio.Future[Any]:
        """Give open slots back; they lapse by themselves if the store is away."""
        return self._submit("ZREM", key, *slots)

    async def ping(self) -> bool:
        """Ask whether the store is there; it says so to ``on_return`` if it was away."""
        return await self._submit("PING") is not None

    async def stop(self) -> None:
        """Let what is queued go out, within the deadline."""
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=2 * self._timeout_s)

    def _submit(self, *words: str | int | float) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.pause_left_s > 0 or len(self._queue) >= QUEUE_MAX:
            answer.set_result(None)
            return answer
        self._queue.append(Command(words, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_queued(), name="leases")
        return answer

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
        """Send in one round trip; if the store does not know a script, load it and send again what lacked it."""
        replies = await self._pipelined(commands)
        lacking = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lacking:
            await self._pipelined([("SCRIPT LOAD", text) for text in SCRIPTS.values()])
            again = await self._pipelined([commands[at] for at in lacking])
            for at, reply in zip(lacking, again, strict=True):
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
        elif self.is_away:
            self.is_away = False
            logger.warning("the store of shared limits is back")
            self._on_return()
        for command, reply in zip(batch, replies, strict=True):
            _settle([command], None if isinstance(reply, Exception) else reply)

    def _fail(self, fault: Exception, commands: list[Command]) -> None:
        self._away_until = self._clock() + self._pause_s
        if not self.is_away:
            self.is_away = True
            logger.warning("the store of shared limits is away: %s: %s", type(fault).__name__, fault)
        _settle(commands, None)


def _settle(commands: list[Command], reply: Any) -> None:
    for command in commands:
        if not command.answer.done():
            command.answer.set_result(reply)
