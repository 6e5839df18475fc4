"""Validate scopes as people write them, on keys and on tiers."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError

from gateway.refusals import Refused
from gateway.snapshot.right import Verb, interval_of
from gateway.snapshot.scopes import CONFLATE, SCOPE

SCOPES_MAX = 100
_READERS_WILDCARD = re.compile(r"(?:publish|subscribe):(?:.*/)?[+#](?:/.*)?", re.DOTALL)
"""A level that no event's address has: a scope with it allows no event."""


def every_scope() -> list[str]:
    """Return the scopes that allow everything, the default of a tier."""
    return [f"{verb.value}:*" for verb in Verb]


def _check_interval(scope: str) -> None:
    """Raise ValidationError for an interval that is invalid or not on a scope to subscribe."""
    plain, mark, interval = scope.partition(CONFLATE)
    if not mark:
        return
    if not plain.startswith(f"{Verb.SUBSCRIBE.value}:") or plain.endswith(":"):
        raise ValidationError({"scopes": f"`{scope[:100]}`: only a subscribe scope can be conflated."})
    try:
        interval_of(interval)
    except Refused as refused:
        raise ValidationError({"scopes": f"`{scope[:100]}`: {refused.detail}"}) from None


def _check_levels(scope: str) -> None:
    """Raise ValidationError for a wildcard of MQTT, which is written otherwise in a scope."""
    if _READERS_WILDCARD.fullmatch(scope.partition(CONFLATE)[0]):
        raise ValidationError(
            {"scopes": f"`{scope[:100]}`: write {{name}} for a level, and {{rest...}} or * for all that follow."}
        )


def clean_scopes(values: Any) -> list[str]:
    """Return the scopes without duplicates. Raises ValidationError."""
    is_list = isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)
    if not is_list or len(values) > SCOPES_MAX:
        raise ValidationError({"scopes": f"Must be a list of at most {SCOPES_MAX} strings."})
    for scope in values:
        if not SCOPE.fullmatch(scope):
            raise ValidationError(
                {
                    "scopes": f"`{scope[:100]}` is not a scope: write call:ROUTE, publish:ADDRESS, subscribe:ADDRESS, "
                    "jobs:TYPE, with * for any text, or * alone."
                }
            )
        _check_levels(scope)
        _check_interval(scope)
    return list(dict.fromkeys(values))
