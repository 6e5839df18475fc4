"""Validate limits as people write them, and fill in their defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError

from gateway.snapshot.documents import Metric

LEAST = 1e-6
"""Below this, the arithmetic of rates loses its precision."""
AMOUNT_MAX = 10**15
PER_MAX_S = 366 * 24 * 3600
CLOSE_AT_MAX = 10**6
WHILE_OPEN = (Metric.OPEN_CONNECTIONS, Metric.OPEN_JOBS)
SCOPES = ("consumer", "key", "connection", "ip")
EXCEEDS = ("reject", "delay", "close")
MODES = ("enforce", "shadow")
FAILS = ("open", "closed")
FIELDS = ("metric", "amount", "per", "burst", "scope", "exceed", "mode", "close_at", "fail")
LIMITS_MAX = 50
BYTES_IN_DEFAULT: Mapping[str, Any] = {"metric": Metric.BYTES_IN.value, "amount": 100 * 1024 * 1024, "per": 10}
"""The limit of a tier that sets none of ``bytes_in`` itself: ten of the largest bodies at once."""


def clean_limits(limits: Any, field: str = "limits") -> list[dict[str, Any]]:
    """Return the limits with their defaults. Raises ValidationError for the first invalid field."""
    if not isinstance(limits, Sequence) or isinstance(limits, str | bytes):
        raise ValidationError({field: "Must be a list of limits."})
    if len(limits) > LIMITS_MAX:
        raise ValidationError({field: f"Must have at most {LIMITS_MAX} limits."})
    cleaned = [_limit(limit, f"{field}[{number}]") for number, limit in enumerate(limits)]
    seen = set()
    for number, limit in enumerate(cleaned):
        identity = (limit["metric"], limit["per"], limit["scope"])
        if identity in seen:
            raise ValidationError({f"{field}[{number}]": "Another limit has the same metric, per and scope."})
        seen.add(identity)
    return cleaned


def clean_tier_limits(limits: Any, field: str = "limits") -> list[dict[str, Any]]:
    """Do as :func:`clean_limits` for a tier, which has the default limit of ``bytes_in`` unless it sets one."""
    cleaned = clean_limits(limits, field)
    if any(limit["metric"] == Metric.BYTES_IN for limit in cleaned):
        return cleaned
    return clean_limits([*cleaned, BYTES_IN_DEFAULT], field)


def _limit(limit: Any, at: str) -> dict[str, Any]:
    if not isinstance(limit, Mapping):
        raise ValidationError({at: "Must be an object."})
    for name in limit:
        if name not in FIELDS:
            raise ValidationError({f"{at}.{name}": f"Unknown field; the fields of a limit are {', '.join(FIELDS)}."})
    metric = _one_of(limit, "metric", tuple(Metric), at)
    amount = _amount(limit, metric, at)
    per = _per(limit.get("per"), metric, f"{at}.per")
    return {
        "metric": metric,
        "amount": amount,
        "per": per,
        "burst": _burst(limit, amount, per, f"{at}.burst"),
        "scope": _scope(limit, metric, at),
        "exceed": _one_of(limit, "exceed", EXCEEDS, at, "reject"),
        "mode": _one_of(limit, "mode", MODES, at, "enforce"),
        "close_at": _close_at(_value(limit, "close_at", 20), f"{at}.close_at"),
        "fail": _one_of(limit, "fail", FAILS, at, "open"),
    }


def _amount(limit: Mapping[str, Any], metric: str, at: str) -> float | int:
    amount = _positive(limit.get("amount"), f"{at}.amount", AMOUNT_MAX)
    if metric in WHILE_OPEN and amount != int(amount):
        raise ValidationError({f"{at}.amount": f"{metric} counts what is open: must be a whole number."})
    return amount


def _burst(limit: Mapping[str, Any], amount: float, per: float | str | None, at: str) -> float | int:
    burst = _positive(_value(limit, "burst", amount), at, AMOUNT_MAX)
    if per == "month" and burst != amount:
        raise ValidationError({at: "A monthly limit is a quota that may be used at once: leave `burst` out."})
    return burst


def _per(per: Any, metric: str, at: str) -> float | int | str | None:
    if metric in WHILE_OPEN:
        if per is not None:
            raise ValidationError({at: f"{metric} counts what is open: leave `per` out."})
        return None
    if per is None:
        raise ValidationError({at: "Is required: a number of seconds, or `month`."})
    if per == "month":
        return "month"
    if isinstance(per, str):
        raise ValidationError({at: "Must be a number of seconds, or `month`."})
    return _positive(per, at, PER_MAX_S)


def _scope(limit: Mapping[str, Any], metric: str, at: str) -> str:
    scope = _one_of(limit, "scope", SCOPES, at, "consumer")
    if scope == "connection" and metric in WHILE_OPEN:
        raise ValidationError({f"{at}.scope": f"{metric} counts over connections: choose consumer, key or ip."})
    return scope


def _close_at(value: Any, at: str) -> float | int:
    """Return the multiple of the amount at which a connection is closed; 0 is never."""
    return 0 if value == 0 and not isinstance(value, bool) else _positive(value, at, CLOSE_AT_MAX)


def _positive(value: Any, at: str, most: int) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValidationError({at: "Must be a number greater than 0."})
    if value < LEAST:
        raise ValidationError({at: f"Must be at least {LEAST:f}."})
    if value > most or not math.isfinite(value):
        raise ValidationError({at: f"Must be at most {most}."})
    return int(value) if value == int(value) else value


def _one_of(limit: Mapping[str, Any], name: str, allowed: Sequence[str], at: str, default: str | None = None) -> str:
    value = _value(limit, name, default)
    if not isinstance(value, str) or value not in allowed:
        raise ValidationError({f"{at}.{name}": f"Must be one of {', '.join(allowed)}."})
    return str(value)


def _value(limit: Mapping[str, Any], name: str, default: Any) -> Any:
    value = limit.get(name)
    return default if value is None else value
