"""The upstream of an operation: its own servers, those of its path, of the document, or the operator's."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from configuration.importers.options import Options, is_absolute
from configuration.importers.references import Path, mapping
from configuration.yaml_documents import Document, DocumentError

_VARIABLE = re.compile(r"\{([^{}]+)\}")


def server_of(document: Document, nodes: list[tuple[dict[str, Any], Path]], options: Options) -> str:
    """Return the base URL for the first of these nodes that has servers, or else for the document.

    ``options.server`` replaces the document's servers; relative URLs are resolved against it. Raises DocumentError.
    """
    for node, at in nodes:
        if node.get("servers"):
            url, where = _first(document, node["servers"], (*at, "servers"))
            if is_absolute(url):
                return url
            return _resolved(document, url, where, options.server or _base(document, options))
    return _base(document, options)


def _base(document: Document, options: Options) -> str:
    servers = document.data.get("servers")
    if not servers:
        if options.server:
            return options.server
        raise document.error("has no servers, so the upstream is unknown; name it with --server URL")
    if options.server and urlsplit(options.server).path:
        return options.server
    try:
        url, where = _first(document, servers, ("servers",))
    except DocumentError:
        if options.server:
            return options.server
        raise
    if is_absolute(url):
        return options.server or url
    return _resolved(document, url, where, options.server)


def _resolved(document: Document, url: str, where: Path, base: str) -> str:
    if not base:
        raise document.error(
            f"the server {url or '/'} is relative; write its absolute URL, or name the upstream with --server URL",
            *where,
        )
    try:
        return urljoin(base + "/", url or "/").rstrip("/")
    except ValueError:
        raise document.error(f"the server {url} is not a URL", *where) from None


def _first(document: Document, servers: Any, at: Path) -> tuple[str, Path]:
    """Return the first server with an absolute URL, or else the first one. Raises DocumentError."""
    if not isinstance(servers, list) or not servers:
        raise document.error("servers must be a list", *at)
    urls = [_url(document, server, (*at, number)) for number, server in enumerate(servers)]
    return next(((url, where) for url, where in urls if is_absolute(url)), urls[0])


def _url(document: Document, node: Any, at: Path) -> tuple[str, Path]:
    server, at = mapping(document, node, at)
    variables, _ = mapping(document, server.get("variables", {}), (*at, "variables"))

    def value(match: re.Match[str]) -> str:
        variable = variables.get(match[1])
        values = variable.get("enum") if isinstance(variable, dict) else None
        values = [variable["default"]] if isinstance(variable, dict) and "default" in variable else values
        if not isinstance(values, list) or not values:
            raise document.error(
                f"the variable {match[1]} of the server has no default; name the upstream with --server URL", *at
            )
        return str(values[0])

    url = _VARIABLE.sub(value, str(server.get("url", ""))).rstrip("/")
    return f"https:{url}" if url.startswith("//") else url, at
