"""Readers of a policy's options. Each raises BadOption with the path of the option that does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.wire.header_fields import NAME, OF_THE_CONNECTION, VALUE


class BadOption(ValueError):
    """An option is unknown, or its value does not fit; ``at`` is its path within the options."""

    def __init__(self, at: str, message: str) -> None:
        super().__init__(message)
        self.at = at


def allow_only(options: Mapping[str, Any], allowed: Iterable[str], at: str = "") -> None:
    """Raise BadOption for an option that is not one of those allowed."""
    names = list(allowed)
    for name in options:
        if name not in names:
            supported = f"Supported options: {', '.join(names)}." if names else "This policy has no options."
            raise BadOption(f"{at}{name}", f"Unknown option. {supported}")


def strings(options: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of strings, empty where the option was left out. Raises BadOption."""
    values = options.get(name, [])
    if not isinstance(values, list):
        raise BadOption(name, "Must be a list of strings.")
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise BadOption(f"{name}[{number}]", "Must be a string.")
    return values


def choice(options: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    """Return one of the allowed values. Raises BadOption."""
    value = options.get(name, default)
    if value not in allowed:
        raise BadOption(name, f"Must be one of {', '.join(allowed)}.")
    return str(value)


def flag(options: Mapping[str, Any], name: str) -> bool:
    """Return true or false, false where the option was left out. Raises BadOption."""
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise BadOption(name, "Must be true or false.")
    return value


def whole_number(options: Mapping[str, Any], name: str, default: int, *, most: int) -> int:
    """Return a whole number from 0 to ``most``. Raises BadOption."""
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise BadOption(name, f"Must be a whole number from 0 to {most}.")
    return value


def header_name(name: Any, at: str) -> bytes:
    """Return the name of a header that a policy may change, in lower case as ASGI has it. Raises BadOption."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadOption(at, "Not a valid header name.")
    if name.lower() in OF_THE_CONNECTION:
        raise BadOption(at, f"`{name}` is reserved for the gateway.")
    return name.lower().encode()


def header_value(value: Any, at: str) -> bytes:
    """Return the value of a header. Raises BadOption."""
    if not isinstance(value, str) or not VALUE.fullmatch(value):
        raise BadOption(at, "Must be a string without line breaks.")
    return value.encode("latin-1")
