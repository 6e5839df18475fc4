"""Reading documents in YAML or JSON: bounded, plain data out, and every fault said with its line and column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

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

    def __init__(self, name: str, data: Any, nodes: Any) -> None:
        self.name = name
        self.data = data
        self._nodes = nodes

    def place(self, *path: str | int) -> str:
        """Say where something stands, as ``file:line:column``; as near as is known."""
        line, column = 0, 0
        node = self._nodes
        for step in path:
            found = _position(node, step)
            if found is None:
                break
            line, column = found
            node = node[step]
        return f"{self.name}:{line + 1}:{column + 1}"

    def error(self, message: str, *path: str | int) -> DocumentError:
        """Make an error about something in the document."""
        return DocumentError(f"{self.place(*path)}: {message}")


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
        text = text.replace("\t", " ")  # JSON indents with tabs, YAML must not; inside texts JSON writes them as \t
    try:
        _check_bounds(text, name)
        nodes = _reader().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = str(error.problem or error.context or "is not YAML").splitlines()[0]
        raise DocumentError(f"{place}: {problem}") from None
    except (YAMLError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"{name}: {str(error).splitlines()[0] if str(error) else 'is not YAML'}") from None
    document = Document(name, None, nodes)
    document.data = _Plain(document).of(nodes, DEPTH_MAX)
    return document


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
        if depth_left < 0:
            raise self._document.error(f"with its aliases it is nested more than {DEPTH_MAX} levels deep", *path)
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
