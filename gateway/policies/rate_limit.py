"""``rate-limit``: the limits of the caller's tier apply, as on every route; with options, one of the route as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.hooks.loading import load
from gateway.policies.hook_view import hook_call
from gateway.policies.options import BadOption, allow_only, choice
from gateway.policies.policy import Build, OutgoingAnswer, Policy
from gateway.protocol import Protocol
from gateway.snapshot.picture import Limit, Metric

if TYPE_CHECKING:
    from gateway.hooks.functions import HookFunction
    from gateway.limiter import Limiter
    from gateway.snapshot.principal import Principal

AMOUNT_MAX = 10**15
PER_MAX_S = 366 * 24 * 3600
MINUTES_MAX = PER_MAX_S // 60
KEY_MAX_CHARS = 256
CACHED_MAX = 10_000
OF_FUNCTIONS = ("rateLimitBy", "function", "metric")
OF_FIXED = ("rateLimitBy", "requestsAllowed", "timeWindowMinutes", "metric")
ANSWERS = ("key", "amount", "per", "burst")

KeyedLimit = tuple[Limit, str]
"""A limit, and the key of the bucket that it is charged in."""


def rate_limit(options: Mapping[str, Any]) -> Build:
    """Read the options: none; ``rateLimitBy: function`` with ``function``; any other ``rateLimitBy`` with an amount."""
    if not options:
        return lambda _: TierLimits()
    by = choice(options, "rateLimitBy", ("function", "user", "ip", "all"), "")
    metric = Metric(choice(options, "metric", (Metric.REQUESTS.value, Metric.MESSAGES_IN.value), Metric.REQUESTS.value))
    return _by_function(options, metric) if by == "function" else _fixed(options, metric, by)


def _fixed(options: Mapping[str, Any], metric: Metric, by: str) -> Build:
    allow_only(options, OF_FIXED)
    amount = _number(options.get("requestsAllowed"), "requestsAllowed", AMOUNT_MAX)
    minutes = _number(options.get("timeWindowMinutes"), "timeWindowMinutes", MINUTES_MAX)
    limit = NamedRouteLimit(metric, amount, minutes * 60, amount)
    return lambda dependencies: FixedLimit(limit, by, dependencies.limiter)


def _by_function(options: Mapping[str, Any], metric: Metric) -> Build:
    allow_only(options, OF_FUNCTIONS)
    name = options.get("function")
    try:
        function = load(name)
    except ValueError as error:
        raise BadOption("function", str(error)) from None
    return lambda dependencies: FunctionLimit(
        metric, dependencies.hooks.function(str(name), function), dependencies.limiter
    )


class NamedRouteLimit(Limit):
    """A limit of a route: its name differs from those of tiers, beside which it is reported."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name in ``RateLimit-Policy`` and ``violated-policies``: ``route-requests-per-60s``."""
        return f"route-{super().name}"


class TierLimits(Policy):
    """Does nothing: the limits of the caller's tier were charged before any policy runs."""


class RouteLimit(Policy):
    """A limit of the route, charged for each request (and connection), or for each message."""

    def __init__(self, metric: Metric, limiter: Limiter) -> None:
        self._metric = metric
        self._limiter = limiter

    def has(self, method: str) -> bool:
        """Return whether the method does anything: messages are charged only where the metric counts them."""
        return super().has(method) and (method != "message_in" or self._metric is Metric.MESSAGES_IN)

    async def admit(self, call: Call) -> OutgoingAnswer | None:
        """Charge a request or a connection; where messages are counted, an HTTP request is one."""
        if self._counts(call):
            await self._charge(call)
        return None

    async def limit_of(self, call: Call) -> KeyedLimit | None:
        """Return the limit that such a call would be charged by, None where there is none. Raises Refused."""
        return await self._limit(call) if self._counts(call) else None

    def _counts(self, call: Call) -> bool:
        return self._metric is Metric.REQUESTS or call.protocol is Protocol.HTTP

    async def message_in(self, call: Call, message: str | bytes) -> str | bytes | None:
        """Charge a message. Raises Refused."""
        await self._charge(call)
        return message

    async def _charge(self, call: Call) -> None:
        keyed = await self._limit(call)
        if keyed is not None:
            limit, key = keyed
            # A shadow charges a bucket of its own: it must not spend from one that is enforced elsewhere.
            await self._limiter.charge_by(call, limit, f"shadow:{key}" if self.is_shadow else key)

    async def _limit(self, call: Call) -> KeyedLimit | None:
        raise NotImplementedError


class FixedLimit(RouteLimit):
    """An amount in a time window for each consumer, each IP address, or all callers of the route together."""

    def __init__(self, limit: NamedRouteLimit, by: str, limiter: Limiter) -> None:
        super().__init__(limit.metric, limiter)
        self._limit_of_route = limit
        self._by = by

    async def _limit(self, call: Call) -> KeyedLimit | None:
        bucket = {"user": call.caller.consumer, "ip": call.ip, "all": ""}[self._by]
        return self._limit_of_route, f"route:{call.target}:{self._by}:{bucket}"


class FunctionLimit(RouteLimit):
    """The limit that a hook returns. An open connection keeps it until its principal changes."""

    def __init__(self, metric: Metric, function: HookFunction, limiter: Limiter) -> None:
        super().__init__(metric, limiter)
        self._function = function
        self._cached: dict[str, tuple[Principal | None, KeyedLimit | None]] = {}
        """The last result for each open connection, by the connection's id; at most ``CACHED_MAX``."""

    async def _limit(self, call: Call) -> KeyedLimit | None:
        connection = call.connection
        if connection is None:
            return await self._query(call)
        cached = self._cached.get(connection.id)
        if cached is None or cached[0] is not call.principal:
            cached = (call.principal, await self._query(call))
            while len(self._cached) >= CACHED_MAX:
                del self._cached[next(iter(self._cached))]
            self._cached[connection.id] = cached
        return cached[1]

    async def _query(self, call: Call) -> KeyedLimit | None:
        result = await self._function(hook_call(call))
        if result is None:
            return None
        try:
            limit, key = self._read(result)
        except (TypeError, ValueError) as error:
            raise self._function.invalid_result(f"returned an invalid limit: {error}") from None
        return limit, f"{self._function.name}:{key}"

    def _read(self, result: Any) -> KeyedLimit:
        """Read ``{"key", "amount", "per", "burst"}``. Raises ValueError."""
        if not isinstance(result, Mapping):
            raise ValueError(f"it is {type(result).__name__}, not an object or None")
        allow_only(result, ANSWERS)
        key = result.get("key")
        if not isinstance(key, str) or not 0 < len(key) <= KEY_MAX_CHARS:
            raise ValueError(f"key must be a string of 1 to {KEY_MAX_CHARS} characters")
        amount = _number(result.get("amount"), "amount", AMOUNT_MAX)
        per = _number(result.get("per"), "per", PER_MAX_S)
        burst = amount if result.get("burst") is None else _number(result["burst"], "burst", AMOUNT_MAX)
        return NamedRouteLimit(self._metric, amount, per, burst), key


def _number(value: Any, at: str, maximum: int) -> float:
    """Return an amount or a time. Raises BadOption where it is not a number greater than 0 within the maximum."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadOption(at, f"{at} must be a number greater than 0.")
    if value > maximum or not math.isfinite(value):
        raise BadOption(at, f"{at} must be at most {maximum}.")
    return float(value)
