"""Parse documents in YAML or JSON to plain data, with limits; every error has its line and column."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

BYTES_MAX = 2 * 1024 * 1024
DEPTH_MAX = 64
ALIASES_MAX = 200
NODES_MAX = 200_000
"""The maximum after expanding aliases, as a few lines of them can expand without bound."""


class DocumentError(ValueError):
    """The document is invalid. The message has the place, and may be shown to the operator."""


class Document:
    """A parsed document: its plain ``data``, and the places of its parts."""

    def __init__(self, name: str, data: Any, nodes: Callable[[], Any]) -> None:
        self.name = name
        self.data = data
        self._nodes = nodes
        """Returns the nodes with their places; called only for errors."""

    def place(self, *path: str | int) -> str:
        """Return the place of a node as ``file:line:column``, or of its nearest known parent."""
        line, column = 0, 0
        node = self._nodes()
        for step in path:
            position = _position(node, step)
            if position is None:
                break
            line, column = position
            node = node[step]
        return f"{self.name}:{line + 1}:{column + 1}"

    def error(self, message: str, *path: str | int) -> DocumentError:
        """Return an error with the place of a node and its JSON Pointer."""
        at = f" (at #{pointer(path)})" if path else ""
        return DocumentError(f"{self.place(*path)}: {message}{at}")


def pointer(path: Iterable[str | int]) -> str:
    """Format a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def read(path: str | Path) -> Document:
    """Parse a file. Raises DocumentError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror or error}") from None
    if len(raw) > BYTES_MAX:
        raise DocumentError(f"{path}: is larger than {BYTES_MAX} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DocumentError(f"{path}: is not UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """Parse a text in YAML or JSON. Raises DocumentError."""
    if len(text) > BYTES_MAX:
        raise DocumentError(f"{name}: is larger than {BYTES_MAX} characters")
    if text.lstrip().startswith(("{", "[")):
        document = _read_json(text, name)
        if document is not None:
            return document
        text = _without_tabs(text)
    nodes = _read_yaml(text, name)
    document = Document(name, None, lambda: nodes)
    document.data = _Plain(document).of(nodes, DEPTH_MAX)
    return document


def _read_json(text: str, name: str) -> Document | None:
    """Parse JSON with a JSON parser: YAML lacks its surrogate escapes and some of its characters.

    Returns None for text that is not strict JSON; the YAML parser then finds the place of the error.
    """
    try:
        data = _STRICT_JSON.decode(text.strip())
    except (ValueError, RecursionError):
        return None

    @cache
    def nodes() -> Any:
        try:
            return _read_yaml(_without_tabs(text), name)
        except DocumentError:
            return None

    document = Document(name, None, nodes)
    document.data = _Plain(document).of(data, DEPTH_MAX)
    return document


def _without_tabs(text: str) -> str:
    """Replace tabs, which may indent JSON but not YAML; within strings JSON escapes them."""
    return text.replace("\t", " ")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two members have the same name")
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _read_yaml(text: str, name: str) -> Any:
    try:
        _check_bounds(text, name)
        return _reader().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = str(error.problem or error.context or "is not YAML").splitlines()[0]
        raise DocumentError(f"{place}: {problem}") from None
    except (YAMLError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"{name}: {str(error).splitlines()[0] if str(error) else 'is not YAML'}") from None


def write(data: Any) -> str:
    """Format plain data as YAML; equal data has equal text."""
    yaml = YAML(typ="rt", pure=True)
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    yaml.allow_unicode = True
    out = StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def _reader() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = False
    return yaml


def _check_bounds(text: str, name: str) -> None:
    """Raise DocumentError for excessive nesting or aliases, from YAML events alone, without recursion."""
    depth = 0
    seen: Counter[type] = Counter()
    for event in _reader().parse(StringIO(text)):
        seen[type(event)] += 1
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        place = f"{name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if depth > DEPTH_MAX:
            raise DocumentError(f"{place}: is nested more than {DEPTH_MAX} levels deep")
        if seen[AliasEvent] > ALIASES_MAX:
            raise DocumentError(f"{place}: has more than {ALIASES_MAX} aliases")
        if seen[DocumentStartEvent] > 1:
            raise DocumentError(f"{place}: a second document begins here; a file must contain one")


class _Plain:
    """Converts nodes to plain data, which is JSON."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes_left = NODES_MAX

    def of(self, node: Any, depth_left: int, *path: str | int) -> Any:
        """Return the plain data of one node. Raises DocumentError."""
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise self._document.error(f"has more than {NODES_MAX} values after expanding aliases", *path)
        if depth_left <= 0 and isinstance(node, Mapping | list):
            raise self._document.error(f"is nested more than {DEPTH_MAX} levels deep after expanding aliases", *path)
        if isinstance(node, Mapping):
            for key in node:
                if not isinstance(key, str | int):
                    raise self._document.error("a name must be a string", *path)
            return {
                self._text(str(key), *path): self.of(value, depth_left - 1, *path, key) for key, value in node.items()
            }
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [self.of(value, depth_left - 1, *path, number) for number, value in enumerate(node)]
        return self._scalar(node, *path)

    def _scalar(self, node: Any, *path: str | int) -> Any:
        if node is None or isinstance(node, bool):
            return node
        if type(node).__name__ == "ScalarBoolean":
            return bool(node)
        if isinstance(node, str):
            return self._text(str(node), *path)
        for kind in (int, float):
            if isinstance(node, kind):
                return kind(node)
        if isinstance(node, date | datetime):
            return node.isoformat()
        raise self._document.error("values of this YAML type are not supported; quote it", *path)

    def _text(self, text: str, *path: str | int) -> str:
        """Return a text that every database can store. Raises DocumentError."""
        if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise self._document.error("a string must not contain NUL or an unpaired surrogate", *path)
        return text


def _position(node: Any, step: str | int) -> tuple[int, int] | None:
    """Return the line and column of a member, counted from 0, or None."""
    positions = getattr(node, "lc", None)
    if positions is None or not getattr(positions, "data", None):
        return None
    try:
        position: tuple[int, int] = positions.item(step) if isinstance(node, Sequence) else positions.key(step)
    except (KeyError, TypeError, IndexError):
        return None
    return position
