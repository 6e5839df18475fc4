"""Import OpenAPI with ``x-zuplo-route``: one route for every operation, with its policies."""

from __future__ import annotations

import re
from typing import Any

from configuration.importers.imported import Imported
from configuration.importers.openapi import METHODS, name_of, route_path
from configuration.importers.references import Path, mapping
from configuration.importers.zuplo_policies import Definitions, Operation
from configuration.yaml_documents import Document

_PROTOCOLS = {
    "webSocketHandler": "websocket",
    "webSocketPipelineHandler": "websocket",
    "urlRewriteHandler": "http",
    "urlForwardHandler": "http",
}
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_PATTERN_PARAMETER = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")
_PATTERN_REST = re.compile(r"/(?:\*|\(\.\*\))\Z")


def is_zuplo(data: Any) -> bool:
    """Return whether the data is such a document, or the paths of one."""
    paths = _paths(data)
    return any(
        isinstance(operation, dict) and "x-zuplo-route" in operation
        for item in paths.values()
        if isinstance(item, dict)
        for operation in item.values()
    )


def routes(document: Document, policies: Document | None = None) -> list[Imported]:
    """Return the routes, each named by its operation, and the issuers of tokens that their policies trust.

    ``policies`` is the project's ``policies.json``; by default it is a part of the document. Raises DocumentError.
    """
    definitions = Definitions(policies if policies is not None else document)
    at: Path = ("paths",) if "paths" in document.data else ()
    names: set[str] = set()
    imported = []
    for path, node in _paths(document.data).items():
        item, where = mapping(document, node, (*at, path))
        for method in METHODS:
            if method in item:
                operation, there = mapping(document, item[method], (*where, method))
                imported.append(_route(document, path, item, method, operation, there, names, definitions))
    return [*definitions.issuers.values(), *imported]


def _paths(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {}
    if isinstance(data.get("paths"), dict):
        return {path: item for path, item in data["paths"].items() if path.startswith("/")}
    return data if all(path.startswith("/") for path in data) else {}


def _route(
    document: Document,
    path: str,
    item: dict[str, Any],
    method: str,
    operation: dict[str, Any],
    at: Path,
    names: set[str],
    definitions: Definitions,
) -> Imported:
    described = Operation(document, operation, at)
    route, at = mapping(document, operation.get("x-zuplo-route"), (*at, "x-zuplo-route"))
    handler, where = mapping(document, route.get("handler"), (*at, "handler"))
    export = str(handler.get("export"))
    if export not in _PROTOCOLS:
        raise document.error(f"the handler {export} is not supported; these are: {', '.join(_PROTOCOLS)}", *where)
    own_path = _route_path(document, path, item, at)
    values = {
        "name": name_of([operation], path, names),
        "path": own_path,
        "methods": [method.upper()],
        "protocol": _PROTOCOLS[export],
        "handler": {"type": "upstream", "url": _url(document, handler, own_path, where)},
        "policies": _policies(document, route, at, definitions, described),
    }
    return Imported("routes", values, at)


def _route_path(document: Document, path: str, item: dict[str, Any], at: Path) -> str:
    options = item.get("x-zuplo-path")
    mode = options.get("pathMode", "open-api") if isinstance(options, dict) else "open-api"
    if mode == "open-api":
        return route_path(path)
    if mode != "url-pattern":
        raise document.error(f"the path mode {mode} is not supported", *at)
    pattern = _PATTERN_PARAMETER.sub(r"{\1}", _PATTERN_REST.sub("/{rest...}", path))
    if any(char in pattern for char in "()*+?"):
        raise document.error(f"the pattern {path} is not supported; only parameters are, and a * at the end", *at)
    return pattern


def _url(document: Document, handler: dict[str, Any], path: str, at: Path) -> str:
    options, at = mapping(document, handler.get("options", {}), (*at, "options"))
    if handler["export"] == "urlForwardHandler":
        pattern = options.get("baseUrl")
        tail = path.replace("...}", "}")
    else:
        pattern, tail = options.get("rewritePattern"), ""
    if not isinstance(pattern, str):
        raise document.error("has no URL to forward to", *at)

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].partition(".")
        if kind != "params":
            raise document.error(f"only Zuplo knows the value of {match[0]}; replace it by its value", *at)
        return f"{{{name}}}"

    pattern = _VARIABLE.sub(value, pattern)
    return (pattern.rstrip("/") + tail) if tail else pattern


def _policies(
    document: Document, route: dict[str, Any], at: Path, definitions: Definitions, operation: Operation
) -> list[dict[str, Any]]:
    """Return the policies of a route: inbound ones first, each side in its order."""
    sides, where = mapping(document, route.get("policies", {}), (*at, "policies"))
    converted: list[dict[str, Any]] = []
    for side in ("inbound", "outbound"):
        names = sides.get(side) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise document.error(f"{side} must be a list of names", *where, side)
        for number, name in enumerate(names):
            converted += definitions.policy(name, side, (*where, side, number), operation)
    return converted + _cors(document, route, at, definitions)


def _cors(document: Document, route: dict[str, Any], at: Path, definitions: Definitions) -> list[dict[str, Any]]:
    cors = str(route.get("corsPolicy", "none"))
    if cors == "none":
        return []
    origins = ["*"] if cors == "anything-goes" else definitions.origins(cors)
    if origins is None:
        message = f"the CORS policy {cors} is defined in config/policies.json: pass that file with --policies"
        raise document.error(message, *at, "corsPolicy")
    return [{"type": "cors", "options": {"allowed_origins": origins}}]
