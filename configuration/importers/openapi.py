"""Import OpenAPI 3: one route for every path, to the first server of the document."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from configuration.importers.imported import Imported
from configuration.importers.references import Path, mapping
from configuration.yaml_documents import Document

METHODS = ("get", "post", "put", "patch", "delete", "options")
_PARAMETER = re.compile(r"\{([^{}]+)\}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def is_openapi(data: Any) -> bool:
    """Return whether the data is an OpenAPI document."""
    return isinstance(data, dict) and "openapi" in data


def is_export(data: Any) -> bool:
    """Return whether a gateway generated this document of its own routes, which omits their upstreams."""
    return isinstance(data, dict) and data.get("x-written-by") == "gateway"


def routes(document: Document) -> list[Imported]:
    """Return the routes, each with the policies api-key and rate-limit. Raises DocumentError."""
    version = str(document.data["openapi"])
    if not version.startswith("3."):
        raise document.error(f"OpenAPI {version} is not supported; 3.x is", "openapi")
    paths, at = mapping(document, document.data.get("paths", {}), ("paths",))
    if is_export(document.data):
        return []
    names: set[str] = set()
    imported = [route for path, node in paths.items() for route in _route(document, path, node, (*at, path), names)]
    if not imported:
        raise document.error("describes no paths that can be called", "paths")
    return imported


def generated_routes(document: Document) -> list[tuple[str, Path]]:
    """Return the names and places of the routes in a document that a gateway generated (``x-route``)."""
    paths, at = mapping(document, document.data.get("paths", {}), ("paths",))
    return [
        (operation["x-route"], (*at, path, method))
        for path, item in paths.items()
        for method, operation in (item.items() if isinstance(item, dict) else ())
        if isinstance(operation, dict) and isinstance(operation.get("x-route"), str)
    ]


def name_of(operations: list[dict[str, Any]], path: str, taken: set[str]) -> str:
    """Return an unused name for a route, made from the id of its only operation, or else from its path."""
    ids = [operation.get("operationId") for operation in operations]
    stem = ids[0] if len(ids) == 1 and isinstance(ids[0], str) else path.replace("{", "").replace("}", "")
    stem = _NOT_IN_NAMES.sub("-", stem).strip("-._")[:90] or "root"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def route_path(path: str) -> str:
    """Return a path with parameter names of ASCII letters, digits and underscores."""
    return _PARAMETER.sub(lambda match: "{" + re.sub(r"\W", "_", match[1], flags=re.ASCII) + "}", path)


def _route(document: Document, path: str, node: Any, at: Path, names: set[str]) -> list[Imported]:
    if path.startswith("x-"):
        return []
    item, at = mapping(document, node, at)
    methods = [method for method in METHODS if method in item]
    if not methods:
        return []
    operations = [mapping(document, item[method], (*at, method))[0] for method in methods]
    is_stream = methods == ["get"] and _is_event_stream(document, operations[0], (*at, "get"))
    own_path = route_path(path)
    values = {
        "name": name_of(operations, path, names),
        "path": own_path,
        "methods": [method.upper() for method in methods],
        "protocol": "sse" if is_stream else "http",
        "handler": {"type": "upstream", "url": _server(document, item, at) + own_path},
        "policies": [{"type": "api-key"}, {"type": "rate-limit"}],
    }
    return [Imported("routes", values, at)]


def _server(document: Document, item: dict[str, Any], at: Path) -> str:
    """Return the base URL of the upstream: the first server of the path, or of the document."""
    servers, where = (item["servers"], (*at, "servers")) if "servers" in item else (None, at)
    if servers is None:
        servers, where = document.data.get("servers"), ("servers",)
    if not isinstance(servers, list) or not servers:
        raise document.error("has no servers, so the upstream is unknown")
    server, where = mapping(document, servers[0], (*where, 0))
    variables, _ = mapping(document, server.get("variables", {}), (*where, "variables"))

    def value(match: re.Match[str]) -> str:
        variable = variables.get(match[1])
        if not isinstance(variable, dict) or "default" not in variable:
            raise document.error(f"the variable {match[1]} of the server has no default", *where)
        return str(variable["default"])

    url = _PARAMETER.sub(value, str(server.get("url", ""))).rstrip("/")
    if urlsplit(url).scheme not in ("http", "https"):
        raise document.error(f"the server {url or '/'} is relative; write its absolute URL", *where)
    return url


def _is_event_stream(document: Document, operation: dict[str, Any], at: Path) -> bool:
    responses, at = mapping(document, operation.get("responses", {}), (*at, "responses"))
    for status, node in responses.items():
        if str(status).startswith("2"):
            response, _ = mapping(document, node, (*at, status))
            content = response.get("content")
            if isinstance(content, dict) and any(str(name).startswith("text/event-stream") for name in content):
                return True
    return False
