"""Read the files that a document refers to: in its folder or the named one, or below, and never from the network."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import unquote

from configuration.yaml_documents import BYTES_MAX, Document, DocumentError, OtherFile, read

FILES_MAX = 500
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//")


def beside(document: Document, reference: str, path: tuple[str | int, ...]) -> tuple[Any, tuple[str | int, ...]]:
    """Return the data of the file that a node at ``path`` refers to, and the path of its root. Raises DocumentError."""
    if _URL.match(reference):
        raise document.error(f"{reference} is on another host; only files beside the document are read", *path)
    if document.file is None:
        raise document.error(f"{reference} is not in this document, which was not read from a file", *path)
    folder = (document.folder or document.file.parent).resolve()
    origin = folder / path[0] if path and isinstance(path[0], OtherFile) else document.file.resolve()
    target = (origin.parent / unquote(reference)).resolve()
    if not target.is_relative_to(folder):
        raise document.error(
            f"{reference} is outside the folder of the document; name the folder of all files with --folder", *path
        )
    if target == document.file.resolve():
        return document.data, ()
    name = OtherFile(target.relative_to(folder))
    if name not in document.others:
        document.others[name] = _read(document, target, reference, path)
    return document.others[name].data, (name,)


def _read(document: Document, target: FilePath, reference: str, path: tuple[str | int, ...]) -> Document:
    if len(document.others) >= FILES_MAX:
        raise document.error(f"refers to more than {FILES_MAX} files", *path)
    try:
        if not target.is_file():
            raise DocumentError(f"{reference}: no such file")
        document.bytes_beside += target.stat().st_size
        if document.bytes_beside > BYTES_MAX:
            raise DocumentError(f"the files beside the document have more than {BYTES_MAX} bytes together")
        return read(target)
    except (DocumentError, OSError, ValueError) as error:
        raise document.error(f"{reference} cannot be read: {error}", *path) from None
