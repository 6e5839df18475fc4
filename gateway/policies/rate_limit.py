"""``rate-limit``: the limits of the caller's tier apply, as on every route; and one of the route's own, where named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.hooks import functions
from gateway.policies.policy import Answered, BadOption, Policy, one_of, only
from gateway.policies.seen import seen
from gateway.protocol import Protocol
from gateway.snapshot.picture import Limit, Metric

if TYPE_CHECKING:
    from gateway.plane import Plane

AMOUNT_MAX = 10**15
PER_MAX_S = 366 * 24 * 3600
MINUTES_MAX = PER_MAX_S // 60
KEY_MAX_CHARS = 256
OF_FUNCTIONS = ("rateLimitBy", "function", "metric")
OF_FIXED = ("rateLimitBy", "requestsAllowed", "timeWindowMinutes", "metric")
ANSWERS = ("key", "amount", "per", "burst")


def rate_limit(options: Mapping[str, Any]) -> Policy:
    """Options: none; or ``rateLimitBy`` ``function`` with ``function``; or ``user``, ``ip``, ``all`` with an amount."""
    if not options:
        return RateLimit(options)
    by = one_of(options, "rateLimitBy", ("function", "user", "ip", "all"), "")
    return ByFunction(options) if by == "function" else Fixed(options, by)


class OfRoute(Limit):
    """A limit that a route has of its own: told beside the limits of tiers, it must not bear the name of one."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name in ``RateLimit-Policy`` and ``violated-policies``: ``route-requests-per-60s``."""
        return f"route-{super().name}"


class RateLimit(Policy):
    """Nothing of its own: ``gateway.limiter`` has charged the tier's limits."""


class OwnLimit(Policy):
    """A limit of the route's own, charged for each request (and connection), or for each message."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        metric = one_of(options, "metric", (Metric.REQUESTS.value, Metric.MESSAGES_IN.value), Metric.REQUESTS.value)
        self._metric = Metric(metric)

    def has(self, part: str) -> bool:
        """Do at one place what the metric says."""
        return super().has(part) and (part != "message_in" or self._metric is Metric.MESSAGES_IN)

    async def admit(self, plane: Plane, call: Call) -> Answered | None:
        """Charge a request, and a connection; where messages are counted, a request is one."""
        if self._counts(call):
            await self._charge(plane, call)
        return None

    async def of_call(self, plane: Plane, call: Call) -> tuple[Limit, str] | None:
        """Give the limit that such a call would be charged by, and whose bucket it is. Raises Refused."""
        return await self._limit(plane, call) if self._counts(call) else None

    def _counts(self, call: Call) -> bool:
        return self._metric is Metric.REQUESTS or call.protocol is Protocol.HTTP

    async def message_in(self, plane: Plane, call: Call, message: str | bytes) -> str | bytes | None:
        """Charge a message."""
        await self._charge(plane, call)
        return message

    async def _charge(self, plane: Plane, call: Call) -> None:
        found = await self._limit(plane, call)
        if found is not None:
            limit, key = found
            # A shadow spends from a bucket of its own: it must not take from one that is enforced elsewhere.
            await plane.limiter.charge_by(call, limit, f"shadow:{key}" if self.is_shadow else key)

    async def _limit(self, plane: Plane, call: Call) -> tuple[Limit, str] | None:
        """Give the limit and whose bucket it is; None where there is none."""
        raise NotImplementedError


class Fixed(OwnLimit):
    """An amount in a time for each consumer, address, or for all callers of the route together."""

    def __init__(self, options: Mapping[str, Any], by: str) -> None:
        super().__init__(options)
        only(options, OF_FIXED)
        self._by = by
        amount = _number(options.get("requestsAllowed"), "requestsAllowed", AMOUNT_MAX)
        minutes = _number(options.get("timeWindowMinutes"), "timeWindowMinutes", MINUTES_MAX)
        self._made = OfRoute(self._metric, amount, minutes * 60, amount)

    async def _limit(self, plane: Plane, call: Call) -> tuple[Limit, str] | None:
        whose = {"user": call.caller.consumer, "ip": call.ip, "all": ""}[self._by]
        return self._made, f"route:{call.target}:{self._by}:{whose}"


class ByFunction(OwnLimit):
    """What an operator's function says of the call; for an open connection it is asked once, and when that changes."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        only(options, OF_FUNCTIONS)
        try:
            self._function = functions.named(options.get("function"))
        except ValueError as error:
            raise BadOption("function", str(error)) from None
        self._said: dict[str, tuple[object, tuple[Limit, str] | None]] = {}

    async def _limit(self, plane: Plane, call: Call) -> tuple[Limit, str] | None:
        connection = call.connection
        if connection is None:
            return await self._ask(plane, call)
        known = self._said.get(connection.id)
        if known is None or known[0] is not call.principal:
            if len(self._said) >= 10_000:
                self._said.clear()
            known = self._said[connection.id] = (call.principal, await self._ask(plane, call))
        return known[1]

    async def _ask(self, plane: Plane, call: Call) -> tuple[Limit, str] | None:
        answer = await self._function(plane.config, seen(call))
        if answer is None:
            return None
        try:
            limit, key = self._read(answer)
        except (TypeError, ValueError) as error:
            raise self._function.nonsense(f"has given no limit: {error}") from None
        return limit, f"{self._function.name}:{key}"

    def _read(self, answer: Any) -> tuple[Limit, str]:
        """Read ``{"key", "amount", "per", "burst"}``. Raises ValueError."""
        if not isinstance(answer, Mapping):
            raise ValueError(f"it is {type(answer).__name__}, not an object or None")
        only(answer, ANSWERS)
        key = answer.get("key")
        if not isinstance(key, str) or not 0 < len(key) <= KEY_MAX_CHARS:
            raise ValueError(f"key is a text of 1 to {KEY_MAX_CHARS} characters")
        amount = _number(answer.get("amount"), "amount", AMOUNT_MAX)
        per = _number(answer.get("per"), "per", PER_MAX_S)
        burst = amount if answer.get("burst") is None else _number(answer["burst"], "burst", AMOUNT_MAX)
        return OfRoute(self._metric, amount, per, burst), key


def _number(value: Any, at: str, most: int) -> float:
    """Read an amount or a time. Raises BadOption for 0, less, too much, and what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadOption(at, f"{at} must be a number greater than 0.")
    if value > most or not math.isfinite(value):
        raise BadOption(at, f"{at} must be at most {most}.")
    return float(value)
