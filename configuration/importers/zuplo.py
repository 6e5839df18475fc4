"""OpenAPI with ``x-zuplo-route``: one route for every operation, with the policies that it names."""

from __future__ import annotations

import re
from typing import Any

from configuration.importers.imported import Imported
from configuration.importers.openapi import METHODS, name_of, our_path
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
    """Say whether this is such a document, whole or its paths alone."""
    paths = _paths(data)
    return any(
        isinstance(operation, dict) and "x-zuplo-route" in operation
        for item in paths.values()
        if isinstance(item, dict)
        for operation in item.values()
    )


def routes(document: Document, policies: Document | None = None) -> list[Imported]:
    """Give the routes, each named by its operation, and the issuers of tokens that their policies trust.

    ``policies`` is the project's ``policies.json``; it may be a part of the document too. Raises DocumentError.
    """
    definitions = Definitions(policies if policies is not None else document)
    at: Path = ("paths",) if "paths" in document.data else ()
    names: set[str] = set()
    found = []
    for path, node in _paths(document.data).items():
        item, where = mapping(document, node, (*at, path))
        for method in METHODS:
            if method in item:
                operation, there = mapping(document, item[method], (*where, method))
                found.append(_route(document, path, item, method, operation, there, names, definitions))
    return [*definitions.issuers.values(), *found]


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
        raise document.error(f"the handler {export} is not read; there are {', '.join(_PROTOCOLS)}", *where)
    ours = _our_path(document, path, item, at)
    values = {
        "name": name_of([operation], path, names),
        "path": ours,
        "methods": [method.upper()],
        "protocol": _PROTOCOLS[export],
        "handler": {"type": "upstream", "url": _url(document, handler, ours, where)},
        "policies": _policies(document, route, at, definitions, described),
    }
    return Imported("routes", values, at)


def _our_path(document: Document, path: str, item: dict[str, Any], at: Path) -> str:
    said = item.get("x-zuplo-path")
    mode = said.get("pathMode", "open-api") if isinstance(said, dict) else "open-api"
    if mode == "open-api":
        return our_path(path)
    if mode != "url-pattern":
        raise document.error(f"the path mode {mode} is not read", *at)
    found = _PATTERN_PARAMETER.sub(r"{\1}", _PATTERN_REST.sub("/{rest...}", path))
    if any(char in found for char in "()*+?"):
        raise document.error(f"the pattern {path} is not read; parameters are, and a * at its end", *at)
    return found


def _url(document: Document, handler: dict[str, Any], path: str, at: Path) -> str:
    options, at = mapping(document, handler.get("options", {}), (*at, "options"))
    if handler["export"] == "urlForwardHandler":
        pattern = options.get("baseUrl")
        tail = path.replace("...}", "}")
    else:
        pattern, tail = options.get("rewritePattern"), ""
    if not isinstance(pattern, str):
        raise document.error("names no URL to forward to", *at)

    def value(found: re.Match[str]) -> str:
        kind, _, name = found[1].partition(".")
        if kind != "params":
            raise document.error(f"{found[0]} is known to Zuplo alone; write its value in its place", *at)
        return f"{{{name}}}"

    pattern = _VARIABLE.sub(value, pattern)
    return (pattern.rstrip("/") + tail) if tail else pattern


def _policies(
    document: Document, route: dict[str, Any], at: Path, definitions: Definitions, operation: Operation
) -> list[dict[str, Any]]:
    """Give the route's policies, inbound ones first, each side in its order."""
    named, where = mapping(document, route.get("policies", {}), (*at, "policies"))
    found: list[dict[str, Any]] = []
    for side in ("inbound", "outbound"):
        names = named.get(side) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise document.error(f"{side} is a list of names", *where, side)
        for number, name in enumerate(names):
            found += definitions.policy(name, side, (*where, side, number), operation)
    return found + _cors(document, route, at, definitions)


def _cors(document: Document, route: dict[str, Any], at: Path, definitions: Definitions) -> list[dict[str, Any]]:
    cors = str(route.get("corsPolicy", "none"))
    if cors == "none":
        return []
    origins = ["*"] if cors == "anything-goes" else definitions.origins(cors)
    if origins is None:
        said = f"the CORS policy {cors} stands in config/policies.json: name that file too, with --policies"
        raise document.error(said, *at, "corsPolicy")
    return [{"type": "cors", "options": {"allowed_origins": origins}}]
