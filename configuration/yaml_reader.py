"""Read YAML 1.2 to plain data from libyaml's events, in linear time, with limits checked as they are reached."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

DEPTH_MAX = 64
ALIASES_MAX = 10_000
NODES_MAX = 3_000_000
"""The maximum after expanding aliases, as a few lines of them can expand without bound."""
DIGITS_MAX = 400
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_CORE = "tag:yaml.org,2002:"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {text: value for value in (True, False) for text in (str(value), str(value).lower(), str(value).upper())}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MERGE = "<<"


class InvalidYaml(ValueError):
    """The text is not YAML, or exceeds a limit. ``place`` is its line and column, counted from 0."""

    def __init__(self, message: str, place: tuple[int, int] | None) -> None:
        super().__init__(message)
        self.place = place


Position = tuple[int, int, Any]
"""Line, column, and the positions of the members of the value there."""


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read yet."""

    value: Any
    positions: Any
    anchor: str | None
    place: tuple[int, int]
    nodes_before: int
    key: str | None = None
    key_place: tuple[int, int] = (0, 0)
    height: int = 1
    merged: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    """A value that aliases may repeat: the same object, counted once more for each."""

    value: Any
    positions: Any
    nodes: int
    height: int


def read_yaml(text: str) -> Any:
    """Return the plain data of a text. Raises InvalidYaml."""
    return _Reader(text).read()[0]


def read_positions(text: str) -> Any:
    """Return the position of every member, as dictionaries and lists of :data:`Position`. Raises InvalidYaml."""
    return _Reader(text, with_positions=True).read()[1]


class _Reader:
    def __init__(self, text: str, *, with_positions: bool = False) -> None:
        self._text = text
        self._with_positions = with_positions
        """Keep the positions of members instead of scalars, whose types do not matter then."""
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}
        self._nodes = 0
        self._aliases = 0
        self._documents = 0
        self._root: tuple[Any, Any] = (None, None)

    def read(self) -> tuple[Any, Any]:
        """Return the data and the positions. Raises InvalidYaml."""
        try:
            for event in self._events():
                _HANDLERS[type(event)](self, event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = str(error.problem or error.context or "is not YAML").splitlines()[0]
            raise InvalidYaml(problem, (mark.line, mark.column) if mark else None) from None
        except yaml.YAMLError as error:
            raise InvalidYaml(str(error).splitlines()[0], None) from None
        return self._root

    def _events(self) -> Iterator[Any]:
        yield from yaml.parse(self._text, Loader=_LOADER)

    def start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise InvalidYaml("a second document begins here; a file must contain one", _place(event))

    def start_mapping(self, event: Any) -> None:
        self._start(event, {}, {})

    def start_sequence(self, event: Any) -> None:
        self._start(event, [], [])

    def _start(self, event: Any, value: Any, positions: Any) -> None:
        self._count(event, 1)
        if event.tag not in (None, "!", _CORE + ("map" if isinstance(value, dict) else "seq")):
            raise self._unsupported(event)
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise InvalidYaml("a name must be a string", self._open[-1].place)
        if len(self._open) >= DEPTH_MAX:
            raise InvalidYaml(f"is nested more than {DEPTH_MAX} levels deep", _place(event))
        self._open.append(_Open(value, positions, event.anchor, _place(event), self._nodes - 1))

    def end(self, event: Any) -> None:
        ended = self._open.pop()
        for merged in ended.merged:
            for name, value in merged.items():
                ended.value.setdefault(name, value)
        nodes = self._nodes - ended.nodes_before
        self._add(event, ended.value, ended.positions, ended.height, nodes, ended.anchor, ended.place)

    def scalar(self, event: Any) -> None:
        above = self._open[-1] if self._open else None
        if above is not None and isinstance(above.value, dict) and above.key is None:
            self._set_key(event, above)
        else:
            self._count(event, 1)
            self._add(event, self._value(event), None, 0, 1, event.anchor, _place(event))

    def alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise InvalidYaml(f"has more than {ALIASES_MAX} aliases", _place(event))
        anchored = self._anchors.get(event.anchor)
        if anchored is None:
            raise InvalidYaml(f"found undefined alias {event.anchor!r}", _place(event))
        if len(self._open) + anchored.height > DEPTH_MAX:
            raise InvalidYaml(f"is nested more than {DEPTH_MAX} levels deep after expanding aliases", _place(event))
        self._count(event, anchored.nodes)
        self._add(event, anchored.value, anchored.positions, anchored.height, anchored.nodes, None, _place(event))

    def _add(
        self,
        event: Any,
        value: Any,
        positions: Any,
        height: int,
        nodes: int,
        anchor: str | None,
        place: tuple[int, int],
    ) -> None:
        if anchor:
            self._anchors[anchor] = _Anchored(value, positions, nodes, height)
        if not self._open:
            self._root = value, positions
            return
        above = self._open[-1]
        above.height = max(above.height, height + 1)
        if isinstance(above.value, list):
            above.value.append(value)
            if self._with_positions:
                above.positions.append((*place, positions))
            return
        if above.key is None:
            raise InvalidYaml("a name must be a string", above.place)
        if above.key == _MERGE and _is_mergeable(value):
            above.merged += value if isinstance(value, list) else [value]
        else:
            above.value[above.key] = value
            if self._with_positions:
                above.positions[above.key] = (*above.key_place, positions)
        above.key = None

    def _set_key(self, event: Any, above: _Open) -> None:
        if event.tag not in (None, "!", _CORE + "str"):
            raise self._unsupported(event)
        if event.value in above.value:
            raise InvalidYaml(f'found duplicate key "{event.value}"', _place(event))
        _require_storable(event.value, _place(event))
        above.key, above.key_place = event.value, _place(event)
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(event.value, None, 1, 0)

    def _value(self, event: Any) -> Any:
        if self._with_positions:
            return None
        tag = event.tag
        if tag is None and not event.implicit[0]:
            tag = "!"
        try:
            value = _plain(event.value) if tag is None else _TAGGED[tag](event.value)
        except KeyError:
            raise self._unsupported(event) from None
        except ValueError as error:
            raise InvalidYaml(str(error), self._member_place(event)) from None
        if isinstance(value, str):
            _require_storable(value, self._member_place(event))
        return value

    def _unsupported(self, event: Any) -> InvalidYaml:
        message = "values of this YAML type are not supported; quote it"
        return InvalidYaml(message, self._member_place(event))

    def _member_place(self, event: Any) -> tuple[int, int]:
        """Return the place of the member whose value an event is."""
        if self._open and self._open[-1].key is not None:
            return self._open[-1].key_place
        return _place(event)

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise InvalidYaml(f"has more than {NODES_MAX} values after expanding aliases", _place(event))


_HANDLERS: dict[type, Callable[[_Reader, Any], None]] = {
    yaml.StreamStartEvent: lambda reader, event: None,
    yaml.StreamEndEvent: lambda reader, event: None,
    yaml.DocumentStartEvent: _Reader.start_document,
    yaml.DocumentEndEvent: lambda reader, event: None,
    yaml.MappingStartEvent: _Reader.start_mapping,
    yaml.SequenceStartEvent: _Reader.start_sequence,
    yaml.MappingEndEvent: _Reader.end,
    yaml.SequenceEndEvent: _Reader.end,
    yaml.ScalarEvent: _Reader.scalar,
    yaml.AliasEvent: _Reader.alias,
}


def _place(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line, mark.column


def _is_mergeable(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(one, dict) for one in value))


def _plain(text: str) -> Any:
    """Resolve a plain scalar by YAML 1.2's core schema: ``yes``, ``on`` and dates are strings."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] in "+-.0123456789":
        if _INT.fullmatch(text):
            return _int(text)
        if _FLOAT.fullmatch(text):
            return _float(text)
        if _NOT_FINITE.fullmatch(text):
            raise ValueError("a number must be finite")
    return text


def _int(text: str) -> int:
    if not _INT.fullmatch(text):
        raise ValueError("must be a whole number")
    if len(text) > DIGITS_MAX:
        raise ValueError(f"a number has more than {DIGITS_MAX} digits")
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


def _float(text: str) -> float:
    is_number = len(text) <= DIGITS_MAX and _FLOAT.fullmatch(text)
    value = float(text) if is_number else math.inf
    if not math.isfinite(value):
        raise ValueError("a number must be finite")
    return value


def _tagged_bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError("must be true or false")
    return _BOOLS[text]


_TAGGED: dict[str, Callable[[str], Any]] = {
    "!": str,
    _CORE + "str": str,
    _CORE + "int": _int,
    _CORE + "float": _float,
    _CORE + "bool": _tagged_bool,
    _CORE + "null": lambda text: None,
}


def _require_storable(text: str, place: tuple[int, int]) -> None:
    """Raise InvalidYaml for a text that not every database can store."""
    if not is_storable(text):
        raise InvalidYaml("a string must not contain NUL or an unpaired surrogate", place)


def is_storable(text: str) -> bool:
    """Return whether every database can store a text: it has no NUL and no unpaired surrogate."""
    return "\x00" not in text and (text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text))
