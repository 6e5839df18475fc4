"""One request to the schema registry, as the data plane passes it on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from events.registry_schemas import No

T = TypeVar("T")
NUMBER = re.compile(r"[0-9]{1,9}")


class Question:
    """One request: its method, path, query and body."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.method: str = asked["method"]
        self.path: list[str] = asked["path"]
        self.body: Any = asked["body"]
        self.by: str = asked["by"]
        self._query: list[tuple[str, str]] = [(name, value) for name, value in asked["query"]]
        self._last = dict(self._query)

    def require_text(self) -> None:
        """Raise No for the character NUL, which PostgreSQL keeps in no text and looks for in none."""
        if any("\0" in part for part in self.path):
            raise No(42208, "Invalid subject: a name has no NUL.")
        if any("\0" in value for _, value in self._query):
            raise No(400, "HTTP 400 Bad Request: a parameter holds NUL.")
        if _holds_nul(self.body):
            raise No(42201, "Invalid schema: it holds NUL.")

    def says(self, name: str) -> bool:
        """Say whether a parameter of the query is true."""
        return self._last.get(name, "").lower() == "true"

    def text(self, name: str) -> str:
        """Give a parameter of the query."""
        return self._last.get(name, "")

    def pairs(self, name: str, value: str) -> dict[str, str]:
        """Give what two parameters, each as often as the other, say together."""
        names, values = ([text for each, text in self._query if each == wanted] for wanted in (name, value))
        return dict(zip(names, values, strict=False))

    def page(self, found: list[T]) -> list[T]:
        """Give the part of a list that ``offset`` and ``limit`` ask for."""
        first = self.number("offset", 0)
        return found[first : first + self.number("limit", len(found))]

    def number(self, name: str, default: int) -> int:
        """Give a parameter of the query that is a number."""
        text = self.text(name)
        return int(text) if NUMBER.fullmatch(text) else default


def _holds_nul(value: Any) -> bool:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str) and "\0" in each:
            return True
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
    return False
