"""Token buckets, calendar months and the sizing of leases: pure arithmetic, with the instant as an argument.

A limit of ``amount`` per ``per`` seconds is a bucket of ``burst`` tokens that refills at ``amount / per``. A bucket is
kept as one number, the instant at which it will be full again: that instant moves on with each token spent, and the
bucket is empty when it lies a whole refill ahead (this is GCRA, the leaky bucket as a meter).

Each process keeps such a bucket of its own for each limit, so that one process alone is exact, and spends besides from
tokens that it *leased* from the bucket that all processes share (see :mod:`.store`). Both must allow a cost.
"""

from __future__ import annotations

from asyncio import Lock
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.snapshot.picture import Limit

if TYPE_CHECKING:
    from asyncio import Task

MONTH = "month"
TOLERANCE_S = 1e-6
"""Rounding of instants must not cost the last token of a bucket."""
LEASE_S = 0.2
"""A lease lasts about so long at the rate lately seen."""
LEASE_SHARE = 0.1
"""No lease takes more than this part of a bucket, unless a single cost is larger."""
LEFT_SHARE = 0.25
"""Nor is more than this part of what is left leased ahead of need …"""
TAIL_S = 0.05
"""… but what refills in so long: where demand keeps a bucket dry, tokens still come in handfuls."""
RATE_WINDOW_S = 0.05
"""The shortest time over which a rate is judged."""
PROBE_S = 0.025
"""A bucket found nearly dry is asked again no sooner, so that tokens come in handfuls under overload."""
BELIEVED_S = 1.0
"""So long is the store's word believed that a bucket is dry: others may have returned meanwhile what they leased."""
ALONE = 2.0**50
"""The lease of a counter that no store limits: what was spent of it can still be told."""
NEVER = float("-inf")


def month_ends_at(unix_s: float) -> float:
    """Give the unix instant at which the calendar month (UTC) of this instant ends."""
    now = datetime.fromtimestamp(unix_s, UTC)
    ends = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return ends.timestamp()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a process asks of the shared bucket: at least ``short``, up to ``want``, if ``enough`` is there.

    ``ahead`` comes on top where the bucket holds plenty: near its end little of it may lie with one process while
    others refuse for want of it.
    """

    short: float
    enough: float
    want: float
    ahead: float = 0.0


def terms(*, cost: float, unit: float, waiting: float, held: float, size: float, rate: float) -> Terms:
    """Size a lease from the cost, the usual cost, what others here wait for, what is held, and the rate lately spent.

    A cost of 0 asks ahead of need. A cost larger than the bucket asks for a full bucket and leaves it in debt.
    """
    hold = min(max(rate * LEASE_S, 2 * unit), size * LEASE_SHARE)
    short = max(0.0, cost - held)
    want = max(short, min(waiting, size) - held)
    return Terms(short, min(cost, size) - held, want, max(0.0, hold - held - want))


class Counter:
    """One limit of one consumer, key, address or connection, as one process counts it."""

    __slots__ = (
        "__weakref__",
        "ask",
        "ask_at",
        "full_at",
        "held",
        "interval_s",
        "is_alone",
        "key",
        "label",
        "lease",
        "leased",
        "left",
        "left_at",
        "limit",
        "low",
        "marked",
        "marked_at",
        "moved_at",
        "pace",
        "pending",
        "rate",
        "reset_at",
        "seen",
        "size",
        "span_s",
        "turn",
        "unit",
        "waiting",
    )

    def __init__(self, limit: Limit, key: str, label: str, ask: Callable[[Counter], None] | None = None) -> None:
        self.limit = limit
        self.key = key
        """The name of the shared bucket; empty where there is none."""
        self.label = label
        """Whose it is, for tallies."""
        self.size = max(0.0, float(limit.amount if limit.per == MONTH else limit.burst or limit.amount))
        self.rate = 0.0 if limit.per == MONTH else limit.amount / _seconds(limit)
        self.interval_s = 1 / self.rate if self.rate > 0 else 0.0
        self.span_s = self.size * self.interval_s + TOLERANCE_S
        self.full_at = 0.0
        """When the bucket of this process alone will be full again."""
        self.is_alone = ask is None
        """No store stands behind it: a connection's own limit, or the store is away."""
        self.lease = ALONE if ask is None else 0.0
        self.low = 0.0
        """Below this, more is leased in the background."""
        self.ask = ask or _nobody
        self.left = self.size
        """What the shared bucket had left at ``left_at``."""
        self.left_at = NEVER
        self.reset_at: float | None = None
        """When the calendar month ends, as far as known."""
        self.ask_at = 0.0
        self.held = 0.0
        """What was held of the store when it went away."""
        self.unit = 0.0
        """The cost last asked for."""
        self.leased = 0.0
        """All that was leased and not returned; less ``lease``, it is what was spent."""
        self.marked = 0.0
        self.marked_at = 0.0
        self.pace = 0.0
        """What had been spent at an instant, and how much a second before it."""
        self.waiting = 0.0
        """Costs that wait here for the store's answer."""
        self.pending: Task[bool] | None = None
        self.seen = 0.0
        self.moved_at = 0.0
        self.turn = Lock()
        """Those who wait for tokens (``exceed: delay``) wait in line."""

    @property
    def is_month(self) -> bool:
        """A calendar quota, not a bucket that refills."""
        return self.limit.per == MONTH

    def wait_s(self, cost: float, now: float) -> float:
        """Say how long this cost has to wait, as far as is known here; 0: take it, or ask the store."""
        if self.size <= 0:
            return _seconds(self.limit)
        enough = min(cost, self.size)
        wait = max(self.full_at, now) + enough * self.interval_s - now - self.span_s
        if self.lease < cost:
            wait = max(wait, self._store_wait_s(enough, now))
        return max(0.0, wait)

    def _store_wait_s(self, enough: float, now: float) -> float:
        short = enough - self.lease - self.left_now(now)
        if short <= TOLERANCE_S * max(1.0, self.rate) or self.is_stale(now):
            return self.ask_at - now
        if self.is_month:
            return max(1.0, self.reset_at - now if self.reset_at is not None else 3600.0)
        return max(short * self.interval_s, self.ask_at - now)

    def is_stale(self, now: float) -> bool:
        """Say whether what the store last said is too old to refuse anybody by."""
        return not self.is_alone and now - self.left_at >= BELIEVED_S

    def left_now(self, now: float) -> float:
        """Say what the shared bucket has left now, had nobody else taken of it since it was asked."""
        if self.left_at == NEVER:
            return self.left
        return min(self.size, self.left + self.rate * (now - self.left_at))

    def lacks(self, cost: float, now: float) -> bool:
        """Say whether this cost cannot be taken at this instant."""
        return self.lease < cost or self.wait_s(cost, now) > 0

    def take(self, cost: float, now: float) -> None:
        """Spend; only after ``lacks`` said no. A cost larger than the bucket leaves it in debt."""
        self.full_at = max(self.full_at, now) + cost * self.interval_s
        self.lease -= cost
        if self.lease < self.low:
            self.ask(self)

    def can_spend(self, lease: float) -> bool:
        """Say whether the lease may go down to this; it runs low, so more is asked for."""
        if lease >= 0:
            self.ask(self)
        return lease >= 0

    def put_back(self, cost: float) -> None:
        """Undo a spending."""
        self.full_at -= cost * self.interval_s
        self.lease += cost

    def owe(self, cost: float, now: float) -> float:
        """Spend what nobody can refuse any more, as it is used already; gives what the lease did not hold of it."""
        self.full_at = max(self.full_at, now) + cost * self.interval_s
        lacking = 0.0 if self.is_alone else cost - min(cost, max(0.0, self.lease))
        self.lease -= cost - lacking
        self.left -= lacking
        return lacking

    def terms(self, cost: float, now: float) -> Terms:
        """Say what to ask of the shared bucket for this cost."""
        rate = self._pace(now)
        self.unit = cost or self.unit
        return terms(cost=cost, unit=self.unit, waiting=self.waiting, held=self.lease, size=self.size, rate=rate)

    def _pace(self, now: float) -> float:
        """Say how much was lately spent a second."""
        spent = self.leased - self.lease
        elapsed = now - self.marked_at
        rate = max(0.0, spent - self.marked) / max(elapsed, RATE_WINDOW_S)
        if elapsed < LEASE_S:
            return max(rate, self.pace)
        self.pace, self.marked, self.marked_at = rate, spent, now
        return rate

    def granted(self, asked: Terms, tokens: float, left: float, reset_s: float, now: float) -> None:
        """Take note of the store's answer."""
        self.lease += tokens
        self.leased += tokens
        self.left, self.left_at = left, now
        self.reset_at = now + reset_s if reset_s else None
        self.low = max(self.lease / 2, 1.5 * self.unit) if self.size * LEASE_SHARE >= 2 * self.unit else 0.0
        self.ask_at = now + min(PROBE_S, self.span_s / 4) if tokens < asked.want / 2 else 0.0

    def go_local(self) -> None:
        """Count alone from now on: the store is away. A quota goes on with what was known to be left of it."""
        if self.is_alone:
            return
        self.is_alone = True
        self.low = 0.0
        self.held = self.lease
        if self.is_month:
            self.leased = self.lease = self.lease + max(0.0, self.left)
            self.left = 0.0
        else:
            self.leased = self.lease = ALONE

    def go_shared(self) -> float:
        """Share again; gives what was spent alone. A quota owes that (less ``held``); a bucket refilled meanwhile."""
        spent = self.leased - self.lease
        self.is_alone = False
        self.lease = self.leased = self.marked = 0.0
        self.low, self.left, self.left_at, self.ask_at = 0.0, self.size, NEVER, 0.0
        return spent

    def returned(self) -> float:
        """Give up what is held of a lease; gives how much that was."""
        held, self.lease = self.lease, 0.0
        self.leased -= held
        return held

    def state(self, now: float) -> tuple[float, float]:
        """Say how much may be spent at once, as far as is known here, and in how many seconds all of it may."""
        remaining = self.lease + self.left
        if not self.rate:
            reset_s = self.reset_at - now if self.reset_at is not None else 0.0
            return min(max(0.0, remaining), self.size), max(0.0, reset_s)
        if self.left_at != NEVER:
            remaining += self.rate * (now - self.left_at)
        own = self.size - self.rate * (self.full_at - now) if self.full_at > now else self.size
        remaining = max(0.0, min(own, remaining))
        return remaining, (self.size - remaining) * self.interval_s


class Flood:
    """What one connection asked beyond a limit: a bucket of ``close_at`` times the amount, filled by refusals."""

    __slots__ = ("_interval_s", "_level_at", "_span_s")

    def __init__(self, limit: Limit) -> None:
        most = max(limit.amount * limit.close_at, limit.amount + 1)
        self._span_s = _seconds(limit)
        self._interval_s = self._span_s / most
        self._level_at = 0.0

    def rises(self, cost: float, now: float) -> bool:
        """Count a refused cost; True once it is over the top."""
        self._level_at = max(self._level_at, now) + cost * self._interval_s
        return self._level_at > now + self._span_s


def spend(counters: tuple[Counter, ...], cost: float, now: float) -> bool:
    """Spend of all or of none. The fast path: what it cannot decide at once (debt, dry leases) it leaves alone."""
    for counter in counters:
        lease = counter.lease - cost
        if (full_at := counter.full_at) < now:
            full_at = now
        full_at += cost * counter.interval_s
        if full_at > now + counter.span_s or (lease < counter.low and not counter.can_spend(lease)):
            put_back(counters, cost, counter)
            return False
        counter.full_at = full_at
        counter.lease = lease
    return True


def put_back(counters: tuple[Counter, ...], cost: float, until: Counter | None = None) -> None:
    """Undo a spending of all counters, or of those before one of them."""
    for counter in counters:
        if counter is until:
            return
        counter.put_back(cost)


def _seconds(limit: Limit) -> float:
    """Give the window in seconds; a limit that names none counts a second (saving one is refused anyway)."""
    return float(limit.per) if isinstance(limit.per, int | float) and limit.per > 0 else 1.0


def _nobody(counter: Counter) -> None:
    """Ask no store."""
