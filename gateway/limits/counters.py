"""Token buckets, calendar months and the sizing of leases: pure arithmetic, with the instant as an argument.

A limit of ``amount`` per ``per`` seconds is a bucket of ``burst`` tokens that refills at ``amount / per``. A bucket is
stored as one number, the instant at which it will be full again. Each token spent moves that instant ahead, and the
bucket is empty when it lies a whole refill ahead (GCRA, the leaky bucket as a meter).

Each process keeps such a bucket for each limit, so that a single process is exact. It also spends from tokens that it
*leased* from the bucket that all processes share (see :mod:`.store`). A cost passes where both allow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.snapshot.picture import Limit

MONTH = "month"
TOLERANCE_S = 1e-6
"""Rounding of instants must not cost the last token of a bucket."""
LEASE_S = 0.2
"""A lease is sized to last this long: ``lease = rate * LEASE_S``, with the rate of the last such interval."""
LEASE_SHARE = 0.1
"""The largest share of a bucket that one lease takes, unless a single cost is larger."""
LEFT_SHARE = 0.25
"""The largest share of the tokens left that is leased ahead of need …"""
TAIL_S = 0.05
"""… but never less than what refills in this time: under demand that keeps a bucket dry, tokens arrive in handfuls."""
RATE_WINDOW_S = 0.05
"""The shortest time over which a rate is measured."""
PROBE_S = 0.025
"""The shortest time between two requests to a bucket that is nearly dry, so that tokens arrive in handfuls …"""
PROBE_SHARE = 0.25
"""… but no more than this share of the time in which the bucket refills."""
BELIEVED_S = 1.0
"""How long a bucket is believed to be dry: other processes may return leased tokens meanwhile."""
MONTH_WAIT_S = 3600.0
"""How long a caller waits for a quota that is used up while the end of the month is unknown."""
ALONE = 2.0**50
"""The lease of a counter without a store: practically unlimited, and still exact to the token."""
NEVER = float("-inf")


def month_ends_at(unix_s: float) -> float:
    """Return the Unix instant at which the calendar month (UTC) of this instant ends."""
    now = datetime.fromtimestamp(unix_s, UTC)
    ends = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return ends.timestamp()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a process requests of the shared bucket: at least ``short``, up to ``want``, if ``enough`` is left.

    ``ahead`` is granted on top while the bucket holds plenty: near its end, little of it may lie with one process while
    others refuse for lack of it.
    """

    short: float
    enough: float
    want: float
    ahead: float = 0.0


def terms(*, cost: float, unit: float, waiting: float, held: float, size: float, rate: float) -> Terms:
    """Size a lease, in tokens.

    ``hold = min(max(rate * LEASE_S, 2 * unit), size * LEASE_SHARE)`` tokens are kept ahead of need, besides ``cost``
    and the costs ``waiting`` here, less what is ``held`` already. A ``cost`` of 0 leases ahead of need alone. A cost
    larger than the bucket requires a full bucket and leaves it in debt.
    """
    hold = min(max(rate * LEASE_S, 2 * unit), size * LEASE_SHARE)
    short = max(0.0, cost - held)
    want = max(short, min(waiting, size) - held)
    return Terms(short, min(cost, size) - held, want, max(0.0, hold - held - want))


class Counter:
    """One limit of one consumer, key, IP or connection, as one process counts it.

    It is alone (:attr:`is_alone`) where no store is behind it: it belongs to one connection, or the store is
    unavailable.
    """

    __slots__ = (
        "__weakref__",
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
        "pace",
        "rate",
        "reset_at",
        "retry_at",
        "size",
        "span_s",
        "unit",
        "waiting",
    )

    def __init__(self, limit: Limit, key: str, label: str, *, is_shared: bool = False) -> None:
        self.limit = limit
        self.key = key
        """The name of the shared bucket; empty for a counter of one connection."""
        self.label = label
        """The consumer, for tallies."""
        self.size = max(0.0, float(limit.amount if limit.per == MONTH else limit.burst or limit.amount))
        self.rate = 0.0 if limit.per == MONTH else limit.amount / _seconds(limit)
        self.interval_s = 1 / self.rate if self.rate > 0 else 0.0
        self.span_s = self.size * self.interval_s + TOLERANCE_S
        self.full_at = 0.0
        """When this process's own bucket will be full again."""
        self.is_alone = not is_shared
        self.lease = 0.0 if is_shared else self.size if self.is_month else ALONE
        self.low = 0.0
        """Below this, :meth:`runs_low` is called."""
        self.left = self.size if is_shared else 0.0
        """What the shared bucket had left at ``left_at``."""
        self.left_at = NEVER
        self.reset_at: float | None = None
        """When the calendar month ends; None while unknown."""
        self.retry_at = 0.0
        """The shared bucket is not queried for more before this instant."""
        self.held = 0.0
        """Of what is spent alone, the part not owed to the store: it had leased that, or a month has ended since."""
        self.unit = 0.0
        """The latest single cost."""
        self.leased = self.lease
        """All that was leased and not returned; ``leased - lease`` is what was spent."""
        self.marked = 0.0
        self.marked_at = 0.0
        """``marked`` tokens had been spent at ``marked_at``, …"""
        self.pace = 0.0
        """… at so many tokens per second before it."""
        self.waiting = 0.0
        """The sum of the costs that wait here for the store's answer."""

    @property
    def is_month(self) -> bool:
        """Whether this is a calendar quota: it does not refill, it is reset."""
        return self.limit.per == MONTH

    def runs_low(self) -> None:
        """Lease more; does nothing here. Called when the lease falls below :attr:`low`."""

    def wait_s(self, cost: float, now: float) -> float:
        """Return how long this cost has to wait, as far as this process knows; 0: take it, or request a lease."""
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
            return self.retry_at - now
        if self.is_month:
            return max(1.0, self.reset_at - now if self.reset_at is not None else MONTH_WAIT_S)
        return max(short * self.interval_s, self.retry_at - now)

    def is_stale(self, now: float) -> bool:
        """Return whether the store's last answer is too old to refuse a caller by."""
        return not self.is_alone and now - self.left_at >= BELIEVED_S

    def left_now(self, now: float) -> float:
        """Return what the shared bucket has left, assuming that nobody has spent from it since the last answer."""
        if self.left_at == NEVER:
            return self.left
        return min(self.size, self.left + self.rate * (now - self.left_at))

    def lacks(self, cost: float, now: float) -> bool:
        """Return whether this cost cannot be taken at this instant."""
        return self.lease < cost or self.wait_s(cost, now) > 0

    def take(self, cost: float, now: float) -> None:
        """Spend; only where :meth:`lacks` returned False. A cost larger than the bucket leaves it in debt."""
        self.full_at = max(self.full_at, now) + cost * self.interval_s
        self.lease -= cost
        if self.lease < self.low:
            self.runs_low()

    def can_spend(self, lease: float) -> bool:
        """Return whether the lease may fall to this amount, which is below :attr:`low`; if so, lease more."""
        if lease >= 0:
            self.runs_low()
        return lease >= 0

    def put_back(self, cost: float) -> None:
        """Undo a spending."""
        self.full_at -= cost * self.interval_s
        self.lease += cost

    def owe(self, cost: float, now: float) -> float:
        """Spend what was used already and cannot be refused; return the part that the lease did not cover."""
        self.full_at = max(self.full_at, now) + cost * self.interval_s
        lacking = 0.0 if self.is_alone else cost - min(cost, max(0.0, self.lease))
        self.lease -= cost - lacking
        self.left -= lacking
        return lacking

    def terms(self, cost: float, now: float) -> Terms:
        """Return what to request of the shared bucket for this cost."""
        rate = self._pace(now)
        self.unit = cost or self.unit
        return terms(cost=cost, unit=self.unit, waiting=self.waiting, held=self.lease, size=self.size, rate=rate)

    def _pace(self, now: float) -> float:
        """Return the recent spending, in tokens per second; below 0 where more was put back."""
        spent = self.leased - self.lease
        elapsed = now - self.marked_at
        rate = (spent - self.marked) / max(elapsed, RATE_WINDOW_S)
        if elapsed < LEASE_S:
            return max(rate, self.pace)
        self.pace, self.marked, self.marked_at = rate, spent, now
        return rate

    def granted(self, requested: Terms, tokens: float, left: float, reset_s: float, now: float) -> None:
        """Record the store's answer."""
        self.lease += tokens
        self.leased += tokens
        self.left, self.left_at = left, now
        self.reset_at = now + reset_s if reset_s else None
        self.low = max(self.lease / 2, 1.5 * self.unit) if self.size * LEASE_SHARE >= 2 * self.unit else 0.0
        self.retry_at = now + min(PROBE_S, self.span_s * PROBE_SHARE) if tokens < requested.want / 2 else 0.0

    def go_local(self) -> None:
        """Count alone: the store is unavailable. A quota continues with what was last known to be left of it."""
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
        """Share again and return what was spent alone.

        A quota owes that to the store, less ``held``; a bucket owes nothing, as it has refilled meanwhile.
        """
        spent = self.leased - self.lease
        self.is_alone = False
        self.lease = self.leased = self.marked = 0.0
        self.left, self.left_at = self.size, NEVER
        return spent

    def begin_month(self) -> None:
        """Begin a month of which the store has stated nothing yet. Tokens that were leased in the last one are void."""
        self.returned()
        self.left, self.reset_at = self.size, None
        if self.is_alone:
            self.held = self.leased
            self.lease, self.left = self.size, 0.0
            self.leased += self.lease

    def returned(self) -> float:
        """Release the lease; return how many tokens it held."""
        held, self.lease = self.lease, 0.0
        self.leased -= held
        return held

    def state(self, now: float) -> tuple[float, float]:
        """Return how much may be spent now, and in how many seconds the whole size may be, as far as is known here."""
        remaining = self.lease + self.left
        if not self.rate:
            reset_s = self.reset_at - now if self.reset_at is not None else 0.0
            return min(max(0.0, remaining), self.size), max(0.0, reset_s)
        if self.left_at != NEVER:
            remaining += self.rate * (now - self.left_at)
        own = self.size - self.rate * (self.full_at - now) if self.full_at > now else self.size
        remaining = min(own, remaining)
        return max(0.0, remaining), (self.size - remaining) * self.interval_s


class Flood:
    """What one connection sent beyond a limit: a bucket of ``close_at`` times the amount, filled by refusals."""

    __slots__ = ("_interval_s", "_level_at", "_span_s")

    def __init__(self, limit: Limit) -> None:
        most = max(limit.amount * limit.close_at, limit.amount + 1)
        self._span_s = _seconds(limit)
        self._interval_s = self._span_s / most
        self._level_at = 0.0

    def rises(self, cost: float, now: float) -> bool:
        """Add a refused cost; return whether the bucket overflows."""
        self._level_at = max(self._level_at, now) + cost * self._interval_s
        return self._level_at > now + self._span_s


def spend(counters: tuple[Counter, ...], cost: float, now: float) -> bool:
    """Spend from all counters or from none. The fast path: False also for what it cannot decide (debt, dry leases)."""
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
    """Undo a spending of all counters, or of those before ``until``."""
    for counter in counters:
        if counter is until:
            return
        counter.put_back(cost)


def _seconds(limit: Limit) -> float:
    """Return the window in seconds; 1 for a limit that has none, which the control plane does not save."""
    return float(limit.per) if isinstance(limit.per, int | float) and limit.per > 0 else 1.0
