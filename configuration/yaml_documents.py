"""Reading documents in YAML or JSON: bounded, plain data out, and every fault said with its line and column."""

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
"""After every alias is written out: what a few lines of aliases can grow to is the danger."""


class DocumentError(ValueError):
    """The document cannot be used; its message names the place and may be shown as it is."""


class Document:
    """A parsed document: ``data`` is plain, and places in it can be told."""

    def __init__(self, name: str, data: Any, nodes: Callable[[], Any]) -> None:
        self.name = name
        self.data = data
        self._nodes = nodes
        """Gives the nodes that know their places; asked for errors alone."""

    def place(self, *path: str | int) -> str:
        """Say where something stands, as ``file:line:column``; as near as is known."""
        line, column = 0, 0
        node = self._nodes()
        for step in path:
            found = _position(node, step)
            if found is None:
                break
            line, column = found
            node = node[step]
        return f"{self.name}:{line + 1}:{column + 1}"

    def error(self, message: str, *path: str | int) -> DocumentError:
        """Make an error about something in the document, with its line and its JSON Pointer."""
        at = f" (at #{pointer(path)})" if path else ""
        return DocumentError(f"{self.place(*path)}: {message}{at}")


def pointer(path: Iterable[str | int]) -> str:
    """Write a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def read(path: str | Path) -> Document:
    """Read a file. Raises DocumentError."""
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
    """Read a text in YAML, of which JSON is a part. Raises DocumentError."""
    if len(text) > BYTES_MAX:
        raise DocumentError(f"{name}: is larger than {BYTES_MAX} characters")
    if text.lstrip().startswith(("{", "[")):
        document = _read_json(text, name)
        if document is not None:
            return document
        text = _spaced(text)
    nodes = _read_yaml(text, name)
    document = Document(name, None, lambda: nodes)
    document.data = _Plain(document).of(nodes, DEPTH_MAX)
    return document


def _read_json(text: str, name: str) -> Document | None:
    """Read JSON as what it is: YAML knows neither its escapes of two halves nor all of its characters.

    None where it is no JSON, or in doubt: reading it as YAML says where the fault is.
    """
    try:
        data = _STRICT_JSON.decode(text.strip())
    except (ValueError, RecursionError):
        return None

    @cache
    def nodes() -> Any:
        try:
            return _read_yaml(_spaced(text), name)
        except DocumentError:
            return None

    document = Document(name, None, nodes)
    document.data = _Plain(document).of(data, DEPTH_MAX)
    return document


def _spaced(text: str) -> str:
    """JSON indents with tabs, YAML must not; inside texts JSON writes them as an escape."""
    return text.replace("\t", " ")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


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
    """Write plain data as YAML, always in the same way."""
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
    """Look at the events alone, which takes no memory and no recursion."""
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
            raise DocumentError(f"{place}: a second document begins here; one file holds one")


class _Plain:
    """Turns nodes into plain data, which is JSON."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes_left = NODES_MAX

    def of(self, node: Any, depth_left: int, *path: str | int) -> Any:
        """Give the plain data of one node. Raises DocumentError."""
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise self._document.error(f"with its aliases it has more than {NODES_MAX} values", *path)
        if depth_left <= 0 and isinstance(node, Mapping | list):
            raise self._document.error(f"is nested more than {DEPTH_MAX} levels deep, aliases written out", *path)
        if isinstance(node, Mapping):
            for key in node:
                if not isinstance(key, str | int):
                    raise self._document.error("a name must be a text", *path)
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
        raise self._document.error("a value of this kind has no meaning here; quote it", *path)

    def _text(self, text: str, *path: str | int) -> str:
        """Give a text that every database can hold and look up. Raises DocumentError."""
        if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise self._document.error("a text must hold neither NUL nor half a surrogate pair", *path)
        return text


def _position(node: Any, step: str | int) -> tuple[int, int] | None:
    """Give line and column of a member, from 0. None where the node knows none."""
    where = getattr(node, "lc", None)
    if where is None or not getattr(where, "data", None):
        return None
    try:
        found: tuple[int, int] = where.item(step) if isinstance(node, Sequence) else where.key(step)
    except (KeyError, TypeError, IndexError):
        return None
    return found
