"""The differences between two states of the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from audit.ordered_json import is_same, is_same_record

SHOWN_MAX_CHARS = 200
_SIGNS = {"created": ("+", "green"), "updated": ("~", "yellow"), "deleted": ("-", "red")}


@dataclass(frozen=True)
class Entry:
    """The change of one object. ``before`` is None for a created object, ``after`` for a deleted one."""

    kind: str
    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def action(self) -> str:
        """``created``, ``updated`` or ``deleted``."""
        return "created" if self.before is None else "deleted" if self.after is None else "updated"

    def fields(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield every field that differs, with its values before and after."""
        before, after = self.before or {}, self.after or {}
        for name in {**before, **after}:
            if not is_same(before.get(name), after.get(name)):
                yield name, before.get(name), after.get(name)


@dataclass
class Diff:
    """Every object that changes, in the order of the changes."""

    entries: list[Entry] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def add(self, kind: str, name: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Add an object, unless it does not change."""
        if not is_same_record(before, after):
            self.entries.append(Entry(kind, name, before, after))

    def summary(self, *, is_dry_run: bool = False) -> str:
        """Return the number of changes by action, in one line."""
        if not self:
            return "Nothing to change."
        counts = [
            f"{sum(entry.action == action for entry in self.entries)} {action}"
            for action in _SIGNS
            if any(entry.action == action for entry in self.entries)
        ]
        return f"{', '.join(counts)}{' (dry run: nothing was changed)' if is_dry_run else ''}."

    def text(self) -> Text:
        """Return every change, coloured."""
        text = Text()
        for entry in self.entries:
            sign, colour = _SIGNS[entry.action]
            text.append(f"{sign} {entry.kind} {entry.name}\n", style=f"bold {colour}")
            if entry.action == "deleted":
                continue
            for name, before, after in entry.fields():
                if entry.action == "updated":
                    text.append(f"    - {name}: {_shortened(before)}\n", style="red")
                text.append(f"    + {name}: {_shortened(after)}\n", style="green")
        return text

    def show(self, out: Any, *, is_dry_run: bool = False, no_color: bool) -> None:
        """Print every change and the summary, coloured where the output is a terminal."""
        console = Console(file=out, soft_wrap=True, no_color=no_color or None)
        if self:
            console.print(self.text(), end="")
        console.print(self.summary(is_dry_run=is_dry_run), highlight=False)


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX_CHARS else text[: SHOWN_MAX_CHARS - 1] + "…"
