"""Parse documents in YAML or JSON to plain data, with limits; every error has its line and column."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML

from configuration.yaml_reader import (
    DEPTH_MAX,
    DIGITS_MAX,
    NODES_MAX,
    InvalidYaml,
    Position,
    is_storable,
    read_positions,
    read_yaml,
)

BYTES_MAX = 32 * 1024 * 1024
STANDARD_INPUT = "-"


class DocumentError(ValueError):
    """The document is invalid. The message has the place, and may be shown to the operator."""


class OtherFile(str):
    """The first step of a path into another document, which lies beside the first one: its relative path."""


class Document:
    """A parsed document: its plain ``data``, and the places of its parts."""

    def __init__(self, name: str, data: Any, positions: Callable[[], Any]) -> None:
        self.name = name
        self.data = data
        self.file: Path | None = None
        """Where it was read from; None for a text."""
        self.folder: Path | None = None
        """The folder in which files that it refers to are read; by default the one that it lies in."""
        self.others: dict[str, Document] = {}
        """Documents beside it that it refers to, by their :class:`OtherFile`."""
        self.bytes_beside = 0
        self.schemas: dict[tuple[tuple[str | int, ...], ...], tuple[dict[str, Any], int]] = {}
        """Schemas that were made self-contained already, each with the number of its values, by the paths of its parts.
        """
        self.schema_nodes = 0
        """The number of values in all schemas that objects of the document have."""
        self._positions = positions
        """Returns the positions of the members; called only for messages."""

    def place(self, *path: str | int) -> str:
        """Return the place of a node as ``file:line:column``, or of its nearest known parent."""
        if path and isinstance(path[0], OtherFile):
            return self.others[path[0]].place(*path[1:])
        line, column = 0, 0
        positions = self._positions()
        for step in path:
            position = _position(positions, step)
            if position is None:
                break
            line, column, positions = position
        return f"{self.name}:{line + 1}:{column + 1}"

    def error(self, message: str, *path: str | int) -> DocumentError:
        """Return an error with the place of a node and its JSON Pointer."""
        _, first = self.root_of(path)
        at = f" (at #{pointer(path[len(first) :])})" if path else ""
        return DocumentError(f"{self.place(*path)}: {message}{at}")

    def root_of(self, path: Sequence[str | int]) -> tuple[Any, tuple[str | int, ...]]:
        """Return the data of the document that a path leads into, and the path of its root."""
        if path and isinstance(path[0], OtherFile):
            return self.others[path[0]].data, (path[0],)
        return self.data, ()


def pointer(path: Iterable[str | int]) -> str:
    """Format a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def read(path: str | Path) -> Document:
    """Parse a file, or standard input for ``-``. Raises DocumentError."""
    if path == STANDARD_INPUT:
        return parse(sys.stdin.read(), "standard input")
    path = Path(path)
    document = parse(read_text(path, BYTES_MAX), str(path))
    document.file = path
    return document


def read_text(path: Path, bytes_max: int) -> str:
    """Return the text of a file in UTF-8. Raises DocumentError."""
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror or error}") from None
    if len(raw) > bytes_max:
        raise DocumentError(f"{path}: is larger than {bytes_max} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DocumentError(f"{path}: is not UTF-8") from None


def parse(text: str, name: str) -> Document:
    """Parse a text in YAML or JSON. Raises DocumentError."""
    if len(text) > BYTES_MAX:
        raise DocumentError(f"{name}: is larger than {BYTES_MAX} characters")
    is_json = text.lstrip().startswith(("{", "["))
    # Tabs may indent JSON but not YAML; within strings JSON escapes them.
    source = text.replace("\t", " ") if is_json else text

    @cache
    def positions() -> Any:
        try:
            return read_positions(source)
        except InvalidYaml:
            return None

    document = Document(name, None, positions)
    if is_json:
        try:
            document.data = _STRICT_JSON.decode(text.strip())
        except (ValueError, RecursionError):
            pass  # the YAML reader finds the place of the error, and reads YAML that begins with a bracket
        else:
            _check(document)
            return document
    try:
        document.data = read_yaml(source)
    except InvalidYaml as error:
        place = "" if error.place is None else f":{error.place[0] + 1}:{error.place[1] + 1}"
        raise DocumentError(f"{name}{place}: {error}") from None
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two members have the same name")
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def write(data: Any) -> str:
    """Format plain data as YAML; equal data has equal text."""
    yaml = YAML(typ="rt", pure=True)
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    yaml.allow_unicode = True
    out = StringIO()
    yaml.dump(data, out)
    return out.getvalue()


_Link = tuple[Any, str | int] | None
"""A step of a path, after the link of its parent."""


def _check(document: Document) -> None:
    """Raise DocumentError for JSON that exceeds a limit, or has a value that not every database can store."""
    left: list[tuple[Any, int, _Link]] = [(document.data, 0, None)]
    nodes = 0
    while left:
        node, depth, link = left.pop()
        nodes += 1
        message = _fault(node, depth, nodes)
        if message:
            raise document.error(message, *_path(link))
        if isinstance(node, dict):
            left.extend((value, depth + 1, (link, name)) for name, value in node.items())
        elif isinstance(node, list):
            left.extend((value, depth + 1, (link, number)) for number, value in enumerate(node))


def nodes_of(data: Any) -> int:
    """Return the number of values in plain data, itself included."""
    members = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return 1 + sum(map(nodes_of, members))


def _fault(node: Any, depth: int, nodes: int) -> str:
    if nodes > NODES_MAX:
        return f"has more than {NODES_MAX} values"
    if isinstance(node, str):
        return "" if is_storable(node) else _NOT_STORABLE
    if isinstance(node, dict):
        if not all(map(is_storable, node)):
            return _NOT_STORABLE
    elif isinstance(node, float):
        return "" if math.isfinite(node) else "a number must be finite"
    elif isinstance(node, int):
        return "" if node.bit_length() <= _BITS_MAX else f"a number has more than {DIGITS_MAX} digits"
    elif not isinstance(node, list):
        return ""
    return f"is nested more than {DEPTH_MAX} levels deep" if depth >= DEPTH_MAX else ""


_NOT_STORABLE = "a string must not contain NUL or an unpaired surrogate"
_BITS_MAX = int(DIGITS_MAX * math.log2(10))


def _path(link: _Link) -> list[str | int]:
    path: list[str | int] = []
    while link is not None:
        link, step = link
        path.append(step)
    return path[::-1]


def _position(positions: Any, step: str | int) -> Position | None:
    """Return the position of a member, or None."""
    try:
        position: Position = positions[step]
    except (KeyError, TypeError, IndexError):
        return None
    return position
