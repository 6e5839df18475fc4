"""A cache of functions of texts that callers choose: it has a ceiling in bytes, not only in entries."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

ARGUMENT_MAX = 255
"""The longest text, and the most members of a tuple, that an entry is kept for."""

Result = TypeVar("Result")


def short_cache(entries_max: int) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Cache the results for short arguments, as ``functools.lru_cache`` does; others are computed each time.

    Each argument must have a length. A longest entry takes a few KiB, so the whole cache a few MiB for each thousand
    entries, whatever callers send.
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        cached = lru_cache(maxsize=entries_max)(function)

        def call_one(argument: Any) -> Result:
            return cached(argument) if len(argument) <= ARGUMENT_MAX else function(argument)

        def call_two(one: Any, other: Any) -> Result:
            is_short = len(one) <= ARGUMENT_MAX and len(other) <= ARGUMENT_MAX
            return cached(one, other) if is_short else function(one, other)

        def call_many(*arguments: Any) -> Result:
            return cached(*arguments) if max(map(len, arguments)) <= ARGUMENT_MAX else function(*arguments)

        # Requests come by here: a fixed signature takes half the time of an unpacked one.
        by_arguments: dict[int, Callable[..., Result]] = {1: call_one, 2: call_two}
        call = wraps(function)(by_arguments.get(function.__code__.co_argcount, call_many))
        call.cached_entries = lambda: cached.cache_info().currsize  # type: ignore[attr-defined]  # for tests
        return call

    return decorate
