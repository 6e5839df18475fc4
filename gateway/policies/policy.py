"""What every policy is: something done to a call on its way in, and to its answer on the way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.call import Call, Headers


class Policy:
    """Does nothing; a policy overrides what it is for."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ())

    def inbound(self, call: Call) -> None:
        """Look at the call, or change it, before it is handled. Raises Refused."""

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Give the headers of the answer as they are to be sent."""
        return headers


def only(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise ValueError for an option that the policy does not have."""
    names = list(known)
    for name in options:
        if name not in names:
            raise ValueError(
                f"Unknown option {name}; " + (f"there are {', '.join(names)}." if names else "there are none.")
            )


def texts(options: Mapping[str, Any], name: str) -> list[str]:
    """Read a list of texts. Raises ValueError."""
    values = options.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is a list of texts.")
    return values
