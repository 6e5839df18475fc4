"""Steps that change a JSON document at JSON Pointers (RFC 6901): remove, rename and set.

A level ``*`` of a pointer matches every member of an object and every element of a list. What does not fit the
document is left unchanged, so a step never fails on JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

EVERY, END = "*", "-"
Pointer = tuple[str, ...]
Step = Callable[[Any], Any]
"""Takes a document, which it may change in place, and returns the changed one."""


def apply_steps(steps: list[Step], document: Any) -> Any:
    """Return the document after all steps, in their order."""
    for step in steps:
        document = step(document)
    return document


def wildcard_end(pointer: Pointer) -> int:
    """Return how many levels of the pointer end with its last ``*``; 0 where it has none."""
    return next((number for number in range(len(pointer), 0, -1) if pointer[number - 1] == EVERY), 0)


def remove_step(pointer: Pointer) -> Step:
    """Return a step that removes what the pointer matches; the pointer must not be empty."""

    def step(document: Any) -> Any:
        for holder in _matches(document, pointer[:-1]):
            _take(holder, pointer[-1])
        return document

    return step


def rename_step(shared: Pointer, old: Pointer, new: Pointer) -> Step:
    """Return a step that moves ``old`` to ``new``, both below each match of ``shared`` and neither empty.

    A value that cannot be put at its new place stays where it was.
    """

    def step(document: Any) -> Any:
        for node in _matches(document, shared):
            for holder in _matches(node, old[:-1]):
                taken = _take(holder, old[-1])
                if taken is not None and not _put(node, new, taken[0]):
                    _put(holder, old[-1:], taken[0])
        return document

    return step


def set_step(pointer: Pointer, value: Any) -> Step:
    """Return a step that sets the value; missing objects on the way after the last ``*`` are created."""
    every = wildcard_end(pointer)

    def step(document: Any) -> Any:
        if not pointer:
            return deepcopy(value)
        if every == len(pointer):
            for holder in _matches(document, pointer[:-1]):
                for key in _keys(holder):
                    holder[key] = deepcopy(value)
        else:
            for node in _matches(document, pointer[:every]):
                _put(node, pointer[every:], deepcopy(value))
        return document

    return step


def _matches(node: Any, pointer: Pointer) -> list[Any]:
    """Return everything that the pointer matches below a node."""
    nodes = [node]
    for level in pointer:
        nodes = [match for node in nodes for match in _children(node, level)]
    return nodes


def _children(node: Any, level: str) -> list[Any]:
    if level == EVERY:
        return [node[key] for key in _keys(node)]
    if isinstance(node, dict):
        return [node[level]] if level in node else []
    number = _index(node, level)
    return [] if number is None else [node[number]]


def _keys(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node)
    return list(range(len(node))) if isinstance(node, list) else []


def _index(node: Any, level: str) -> int | None:
    """Return the index that a level names in a list (RFC 6901, 4), None where there is no such element."""
    if not isinstance(node, list) or not (level.isascii() and level.isdigit()) or (level[0] == "0" and level != "0"):
        return None
    return int(level) if len(level) < 10 and int(level) < len(node) else None


def _take(holder: Any, level: str) -> tuple[Any] | None:
    """Remove a member or element and return it in a tuple; None where there is none. ``*`` removes all of them."""
    if level == EVERY:
        if isinstance(holder, dict | list):
            holder.clear()
        return None
    if isinstance(holder, dict):
        return (holder.pop(level),) if level in holder else None
    number = _index(holder, level)
    return None if number is None else (holder.pop(number),)


def _put(node: Any, pointer: Pointer, value: Any) -> bool:
    """Put a value at a pointer, creating objects on the way; False where something there cannot hold it."""
    for level in pointer[:-1]:
        if isinstance(node, dict):
            node = node.setdefault(level, {})
        elif (number := _index(node, level)) is not None:
            node = node[number]
        else:
            return False
    last = pointer[-1]
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list) and last == END:
        node.append(value)
    elif (number := _index(node, last)) is not None:
        node[number] = value
    else:
        return False
    return True
