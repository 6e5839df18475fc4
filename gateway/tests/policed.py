"""Policies as a route names them, and what tests say of those in shadow mode."""

from __future__ import annotations

from typing import Any

HOOKS = "hooks_of_an_operator"


class Shadows:
    """Keeps what shadows would have refused."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def note(self, call: Any, name: str, reason: str) -> None:
        self.noted.append((name, reason))


def policy(type_: str, mode: str = "enforce", **options: Any) -> dict[str, Any]:
    return {"type": type_, "options": options, "mode": mode}


def custom(function: str, mode: str = "enforce", **options: Any) -> dict[str, Any]:
    return policy("custom", mode, function=f"{HOOKS}:{function}", **options)
