"""What an operator asks of an import: a prefix, a server, values of variables, a selection, and strictness."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from configuration.yaml_documents import DocumentError, read_text

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_VARIABLE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|SECRET|TOKEN|PASSWORD|PASS|CREDENTIALS?|APIKEY)(?:_|$)", re.IGNORECASE)
_SECRET_COMMENT = re.compile(r"\s#\s*secret\s*\Z", re.IGNORECASE)
ENV_MAX_BYTES = 1024 * 1024
DOCUMENT_MAX_CHARS = 200
SCHEMES = ("http", "https", "ws", "wss")


class Secret(str):
    """The value of a variable, or a text with it, that may only become a credential: never a part of an export."""


def is_absolute(url: str) -> bool:
    """Return whether a URL can be that of an upstream."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in SCHEMES and bool(parts.netloc)


@dataclass(frozen=True)
class Options:
    """The options of one import. Raises DocumentError for a value that cannot be used."""

    prefix: str = ""
    """Comes before every path, address and name of the document: ``/stripe``."""
    server: str = ""
    """The upstream, in place of the document's own servers."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of ``${env.NAME}`` and ``$env(NAME)``."""
    only: tuple[str, ...] = ()
    """Patterns of paths, names and addresses; everything else is left out."""
    document: str = ""
    """The name by which objects know the document; empty: its title and its file."""
    is_strict: bool = False
    """Whether anything that would be skipped refuses the document."""

    def __post_init__(self) -> None:
        prefix = "/" + self.prefix.strip("/") if self.prefix.strip("/") else ""
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "server", self.server.rstrip("/"))
        object.__setattr__(self, "document", self.document.strip())
        if len(self.document) > DOCUMENT_MAX_CHARS or not self.document.isprintable():
            raise DocumentError(f"--document must be a name of at most {DOCUMENT_MAX_CHARS} printable characters")
        if prefix and not _PREFIX.fullmatch(prefix):
            raise DocumentError("--prefix must be a path of letters, digits, dots, dashes and underscores")
        if self.server and not is_absolute(self.server):
            raise DocumentError(f"--server must be an absolute URL that begins with one of {', '.join(SCHEMES)}")

    def name(self, name: str) -> str:
        """Return the name of an object under the prefix."""
        return f"{self.prefix[1:].replace('/', '-').replace('~', '-')}-{name}" if self.prefix else name

    def path(self, path: str) -> str:
        """Return a path under the prefix."""
        return self.prefix + path

    def address(self, address: str) -> str:
        """Return the address of a channel under the prefix."""
        return f"{self.prefix[1:]}/{address.removeprefix('/')}" if self.prefix else address

    def selects(self, *names: str) -> bool:
        """Return whether an object with these names is to be imported."""
        return not self.only or any(fnmatchcase(name, pattern) for name in names for pattern in self.only)


def read_variables(path: str | Path) -> dict[str, str]:
    """Read a file of lines ``NAME=value``, with comments and quotes as in ``.env`` files. Raises DocumentError.

    A value is secret if its name says so, or the comment ``# secret`` behind it.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(read_text(Path(path), ENV_MAX_BYTES).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _VARIABLE.fullmatch(line.strip())
        if found is None:
            raise DocumentError(f"{path}:{number}: must be NAME=value")
        written = found[2]
        comment = _SECRET_COMMENT.search(written)
        value = _unquoted(written[: comment.start()].rstrip() if comment else written)
        variables[found[1]] = Secret(value) if comment or _SECRET_NAME.search(found[1]) else value
    return variables


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()
