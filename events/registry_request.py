"""A request to the schema registry, as the data plane forwards it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from events.registry_access import Access
from events.registry_schemas import RegistryError

T = TypeVar("T")
NUMBER = re.compile(r"[0-9]{1,9}")
PAIRED = ("key", "value")
"""Parameters that are repeated equally often, and together form pairs."""


class RegistryRequest:
    """Method, path, query, body, actor and rights of one request."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.method: str = fields["method"]
        self.path: list[str] = fields["path"]
        self.body: Any = fields["body"]
        self.by: str = fields["by"]
        self._query: list[tuple[str, str]] = [(name, value) for name, value in fields["query"]]
        self._last = dict(self._query)
        self.access = Access(fields)

    def require_text(self) -> None:
        """Raise RegistryError for a NUL character, which PostgreSQL accepts neither in values nor in queries."""
        if any("\0" in part for part in self.path):
            raise RegistryError(42208, "Invalid subject: a name must not contain NUL.")
        if any("\0" in value for _, value in self._query):
            raise RegistryError(400, "HTTP 400 Bad Request: a parameter contains NUL.")
        if _holds_nul(self.body):
            raise RegistryError(42201, "Invalid schema: it contains NUL.")

    def require_single_values(self) -> None:
        """Raise RegistryError for a parameter of the query that is empty or repeated."""
        names = [name for name, _ in self._query]
        for name, value in self._query:
            if not value.strip():
                raise _invalid(name, "must not be empty; leave the parameter out")
            if name not in PAIRED and names.count(name) > 1:
                raise _invalid(name, "must be given once")

    def flag(self, name: str) -> bool:
        """Return whether a parameter of the query is true. Raises RegistryError for what is neither true nor false."""
        text = self._last.get(name, "false").lower()
        if text not in ("true", "false"):
            raise _invalid(name, "must be `true` or `false`")
        return text == "true"

    def text(self, name: str) -> str:
        """Return a parameter of the query; empty if it is missing."""
        return self._last.get(name, "")

    def pairs(self, name: str, value: str) -> dict[str, str]:
        """Return the pairs formed by two parameters that are repeated equally often."""
        names, values = ([text for each, text in self._query if each == parameter] for parameter in (name, value))
        return dict(zip(names, values, strict=False))

    def page(self, items: list[T]) -> list[T]:
        """Return the part of a list that ``offset`` and ``limit`` select."""
        first = self.number("offset", 0)
        return items[first : first + self.number("limit", len(items))]

    def number(self, name: str, default: int) -> int:
        """Return a numeric parameter of the query, where -1 is its default. Raises RegistryError."""
        text = self._last.get(name, "-1")
        if text != "-1" and not NUMBER.fullmatch(text):
            raise _invalid(name, "must be a whole number")
        return default if text == "-1" else int(text)


def _invalid(name: str, why: str) -> RegistryError:
    return RegistryError(400, f"HTTP 400 Bad Request: the parameter `{name[:40]}` {why}.")


def _holds_nul(value: Any) -> bool:
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, str) and "\0" in each:
            return True
        if isinstance(each, dict):
            stack += [*each, *each.values()]
        elif isinstance(each, list):
            stack += each
    return False
