"""What an operator asks of an import: a prefix, a server, values of variables, a selection, and strictness."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from configuration.yaml_documents import DocumentError

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_VARIABLE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
ENV_MAX_BYTES = 1024 * 1024
SCHEMES = ("http", "https", "ws", "wss")


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
    is_strict: bool = False
    """Whether anything that would be skipped refuses the document."""

    def __post_init__(self) -> None:
        prefix = "/" + self.prefix.strip("/") if self.prefix.strip("/") else ""
        object.__setattr__(self, "prefix", prefix)
        object.__setattr__(self, "server", self.server.rstrip("/"))
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
    """Read a file of lines ``NAME=value``, with comments and quotes as in ``.env`` files. Raises DocumentError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(ENV_MAX_BYTES + 1).decode()
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DocumentError(f"{path}: is not UTF-8") from None
    if len(text) > ENV_MAX_BYTES:
        raise DocumentError(f"{path}: is larger than {ENV_MAX_BYTES} bytes")
    variables = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _VARIABLE.fullmatch(line.strip())
        if found is None:
            raise DocumentError(f"{path}:{number}: must be NAME=value")
        variables[found[1]] = _unquoted(found[2])
    return variables


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()
