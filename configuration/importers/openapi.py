"""Import OpenAPI 3: a route for every path, or several where its operations have different servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from configuration.importers.imported import Imported
from configuration.importers.options import Options
from configuration.importers.references import Path, mapping
from configuration.importers.report import Report
from configuration.importers.servers import server_of
from configuration.yaml_documents import Document, DocumentError
from gateway.snapshot.endpoints import is_own, is_reserved

METHODS = ("get", "post", "put", "patch", "delete", "options", "head", "trace", "query")
_PARAMETER = re.compile(r"\{([^{}]+)\}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_MAX_CHARS = 100
NAMES_SHOWN = 10
"""Names in one line of the report."""

Operations = dict[str, tuple[dict[str, Any], Path]]
"""Operations and their places, by method."""


def is_openapi(data: Any) -> bool:
    """Return whether the data is an OpenAPI document."""
    return isinstance(data, dict) and "openapi" in data


def is_export(data: Any) -> bool:
    """Return whether a gateway generated this document of its own routes, which omits their upstreams."""
    return isinstance(data, dict) and data.get("x-written-by") == "gateway"


def routes(document: Document, options: Options, report: Report) -> list[Imported]:
    """Return the routes, each with the policies api-key and rate-limit. Raises DocumentError if there are none.

    Paths that cannot be routes are added to the report.
    """
    version = str(document.data["openapi"])
    if not version.startswith("3."):
        raise document.error(f"OpenAPI {version} is not supported; 3.x is", "openapi")
    paths, at = mapping(document, document.data.get("paths", {}), ("paths",))
    if is_export(document.data):
        return []
    _skip_calls_back(document, paths, report)
    names: set[str] = set()
    imported: list[Imported] = []
    taken: set[tuple[str, str]] = set()
    # A path without a query comes first: what is described for it with one as well is served by its route.
    for path, node in sorted(paths.items(), key=lambda item: "?" in item[0]):
        if path.startswith("x-"):
            continue
        plain, query, _ = path.partition("?")
        try:
            imported += _routes(document, plain, node, (*at, path), names, options, taken)
            if query:
                note = f"a query is no part of a path, so that {path} is imported as {plain}"
                report.skip(document.error(note, *at, path))
        except DocumentError as error:
            report.skip(error)
    if not imported:
        raise report.nothing(document, "describes no paths that can be called", "paths")
    return imported


def _skip_calls_back(document: Document, paths: dict[str, Any], report: Report) -> None:
    """Report the calls that the API makes itself, which no routes are for: its webhooks and callbacks."""
    operations = [operation for item in paths.values() if isinstance(item, dict) for operation in item.values()]
    callbacks = [
        name for operation in operations if isinstance(operation, dict) for name in _names(operation.get("callbacks"))
    ]
    for kind, names in (("webhooks", _names(document.data.get("webhooks"))), ("callbacks", callbacks)):
        if names:
            shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
            message = f"{len(names)} {kind} are skipped, as the API makes these calls itself: {shown}"
            report.skip(document.error(message, *(["webhooks"] if kind == "webhooks" else [])))


def _names(node: Any) -> list[str]:
    return [str(name) for name in node if name != "$ref"] if isinstance(node, dict) else []


def generated_routes(document: Document) -> list[tuple[str, Path]]:
    """Return the names and places of the routes in a document that a gateway generated (``x-route``)."""
    paths, at = mapping(document, document.data.get("paths", {}), ("paths",))
    return [
        (operation["x-route"], (*at, path, method))
        for path, item in paths.items()
        for method, operation in (item.items() if isinstance(item, dict) else ())
        if isinstance(operation, dict) and isinstance(operation.get("x-route"), str)
    ]


def name_of(operations: list[dict[str, Any]], path: str, taken: set[str], options: Options) -> str:
    """Return an unused name for a route, made from the id of its only operation, or else from its path."""
    ids = [operation.get("operationId") for operation in operations]
    stem = ids[0] if len(ids) == 1 and isinstance(ids[0], str) else path.replace("{", "").replace("}", "")
    stem = options.name(_NOT_IN_NAMES.sub("-", stem).strip("-._") or "root")[: _NAME_MAX_CHARS - 10]
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def route_path(path: str) -> str:
    """Return a path with parameter names of ASCII letters, digits and underscores, each once.

    A last parameter that may hold slashes (``{+name}``, ``{proxy+}``, ``{path*}``) becomes ``{name...}``.
    """
    names: list[str] = []

    def parameter(match: re.Match[str]) -> str:
        name = re.sub(r"\W", "_", match[1].strip("+*"), flags=re.ASCII)
        name = f"_{name}" if not name or name[0].isdigit() else name
        names.append(name)
        name += f"_{names.count(name)}" if names.count(name) > 1 else ""
        is_last = match.end() == len(path) and path[match.start() - 1] == "/"
        is_rest = match[1][0] == "+" or match[1][-1] in "+*"
        return f"{{{name}...}}" if is_rest and is_last else f"{{{name}}}"

    return _PARAMETER.sub(parameter, path)


def place_path(document: Document, path: str, at: Path, options: Options) -> dict[str, Any]:
    """Return the fields that put a route at its path under the prefix. Raises DocumentError for the gateway's own."""
    path = options.path(path)
    if not is_reserved(path):
        return {"path": path}
    if is_own(path):
        raise document.error(f"{path} is an address of the gateway itself; import it under a --prefix", *at)
    return {"path": path, "reserved_override": True}


def _routes(
    document: Document,
    path: str,
    node: Any,
    at: Path,
    names: set[str],
    options: Options,
    taken: set[tuple[str, str]],
) -> Iterator[Imported]:
    """Yield the routes of a path, without the methods that are taken already, to which its own are added."""
    item, at = mapping(document, node, at)
    by_server: dict[str, Operations] = {}
    for method, (operation, where) in operations_of(document, item, at).items():
        if (path, method) not in taken and options.selects(path, str(operation.get("operationId", ""))):
            taken.add((path, method))
            server = server_of(document, [(operation, where), (item, at)], options)
            by_server.setdefault(server, {})[method] = (operation, where)
    own_path = route_path(path)
    for server, operations in by_server.items():
        values = {
            "name": name_of([operation for operation, _ in operations.values()], path, names, options),
            **place_path(document, own_path, at, options),
            "methods": list(operations),
            "protocol": _protocol(document, server, operations),
            "handler": {"type": "upstream", "url": server + _escaped(own_path)},
            "policies": [{"type": "api-key"}, {"type": "rate-limit"}],
        }
        yield Imported("routes", values, at)


def _escaped(path: str) -> str:
    """Return a path as it is written in a URL, where everything but ASCII is percent-encoded (RFC 3987 3.1)."""
    return "".join(char if char.isascii() else quote(char) for char in path)


def operations_of(document: Document, item: dict[str, Any], at: Path) -> Operations:
    """Return the operations of a path; a ``HEAD`` is served by the ``GET`` beside it. Raises DocumentError."""
    operations = {
        method.upper(): mapping(document, item[method], (*at, method)) for method in METHODS if method in item
    }
    others, where = mapping(document, item.get("additionalOperations", {}), (*at, "additionalOperations"))
    operations |= {method: mapping(document, node, (*where, method)) for method, node in others.items()}
    if "GET" in operations:
        operations.pop("HEAD", None)
    return operations


def _protocol(document: Document, server: str, operations: Operations) -> str:
    if server.startswith("ws"):
        return "websocket"
    is_stream = list(operations) == ["GET"] and _is_event_stream(document, *operations["GET"])
    return "sse" if is_stream else "http"


def _is_event_stream(document: Document, operation: dict[str, Any], at: Path) -> bool:
    responses, at = mapping(document, operation.get("responses", {}), (*at, "responses"))
    for status, node in responses.items():
        if str(status).startswith("2"):
            response, _ = mapping(document, node, (*at, status))
            content = response.get("content")
            if isinstance(content, dict) and any(str(name).startswith("text/event-stream") for name in content):
                return True
    return False
