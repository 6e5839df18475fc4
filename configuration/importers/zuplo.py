"""Import OpenAPI with ``x-zuplo-route``: one route for every operation, with its policies."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

from configuration.importers.imported import Imported
from configuration.importers.openapi import name_of, operations_of, place_path, route_path
from configuration.importers.options import Options, Secret
from configuration.importers.references import Path, mapping
from configuration.importers.report import Report
from configuration.importers.url_patterns import UNNAMED, Pattern
from configuration.importers.variables import VARIABLE, value_of
from configuration.importers.zuplo_policies import Definitions, Operation
from configuration.yaml_documents import Document, DocumentError
from gateway.policies.placeholder import PLACEHOLDER

POLICIES_FILE = "policies.json"
FOLDER = "config"
"""The folder of a project in which its documents lie; they refer to ``../schemas/``."""

_PROTOCOLS = {
    "webSocketHandler": "websocket",
    "webSocketPipelineHandler": "websocket",
    "urlRewriteHandler": "http",
    "urlForwardHandler": "http",
}
_PLACE = re.compile(rf"{VARIABLE.pattern}|\$\{{(?P<call>[^{{}}]*)\}}")
"""What is replaced in a URL: a variable of the project, or a part of the call."""
_LEADING_VARIABLE = re.compile(rf"\A(?:{VARIABLE.pattern})")
_IMPORT = re.compile(r"\$import\((.*)\)")
_SEARCH = re.compile(r"\$\{search\}\Z")
"""The query of the call, which an upstream gets anyway."""


def is_zuplo(data: Any) -> bool:
    """Return whether the data is such a document, or the paths of one."""
    paths = _paths(data)
    return any(
        isinstance(operation, dict) and "x-zuplo-route" in operation
        for item in paths.values()
        if isinstance(item, dict)
        for operation in item.values()
    )


def routes(document: Document, policies: Document | None, options: Options, report: Report) -> list[Imported]:
    """Return the routes, each named by its operation, and the issuers of tokens that their policies trust.

    ``policies`` is the project's ``policies.json``; by default it is a part of the document. Handlers and policies that
    are not the gateway's become placeholders, and are added to the report. Raises DocumentError if there are no routes.
    """
    definitions = Definitions(policies if policies is not None else document, options, report)
    at: Path = ("paths",) if "paths" in document.data else ()
    names: set[str] = set()
    imported = []
    for path, node in _paths(document.data).items():
        try:
            item, where = mapping(document, node, (*at, path))
            operations = operations_of(document, item, where)
        except DocumentError as error:
            report.skip(error)
            continue
        for method, (described, there) in operations.items():
            operation = Operation(document, described, there)
            try:
                if options.selects(path, str(described.get("operationId", ""))):
                    imported.append(_route(path, item, method, operation, names, definitions))
            except DocumentError as error:
                report.skip(error)
    if not imported:
        raise report.nothing(document, "describes no paths that can be called", *at)
    return [*definitions.issuers.values(), *imported]


def _paths(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {}
    if isinstance(data.get("paths"), dict):
        return {path: item for path, item in data["paths"].items() if path.startswith("/")}
    return data if all(path.startswith("/") for path in data) else {}


def _route(
    path: str, item: dict[str, Any], method: str, operation: Operation, names: set[str], definitions: Definitions
) -> Imported:
    document, options = operation.document, definitions.options
    if "x-zuplo-route" not in operation.node:
        raise document.error(f"{method} {path} has no x-zuplo-route", *operation.path)
    route, at = mapping(document, operation.node["x-zuplo-route"], (*operation.path, "x-zuplo-route"))
    handler, where = mapping(document, route.get("handler"), (*at, "handler"))
    own_path = _route_path(document, path, item, at, definitions.report)
    name = name_of([operation.node], path, names, options)
    export = str(handler.get("export"))
    values = {
        "name": name,
        **place_path(document, own_path, at, options),
        "methods": [method],
        "protocol": _PROTOCOLS.get(export, "http"),
        "handler": _handler(document, name, handler, own_path, where, definitions),
        "policies": _policies(document, route, at, definitions, operation),
    }
    if operation.credentials:
        _add_credential(document, values, operation, at, definitions.report)
    return Imported("routes", values, at)


def _add_credential(document: Document, values: dict[str, Any], operation: Operation, at: Path, report: Report) -> None:
    """Give a route the credential of its upstream, which is encrypted and never shown."""
    if values["handler"]["type"] == "upstream":
        values["upstream_credential"] = operation.credentials[0]
        return
    header = operation.credentials[0]["header"]
    message = f"the header {header} of the route {values['name']} is a credential, which a placeholder cannot have"
    report.skip(document.error(f"{message}; set upstream_credential with its handler", *at))


def _handler(
    document: Document, name: str, handler: dict[str, Any], path: str, at: Path, definitions: Definitions
) -> dict[str, Any]:
    """Return the handler, or a placeholder for one that the gateway does not have or whose URL is unknown."""
    export, module = str(handler.get("export")), _module(handler)
    try:
        if export not in _PROTOCOLS:
            raise document.error(f"the handler {export}{module} is not the gateway's", *at)
        if filters := _message_policies(handler):
            raise document.error(
                f"the messages of a WebSocket pass through {filters}, which are not the gateway's", *at
            )
        return {"type": "upstream", "url": _url(document, handler, path, at, definitions.options)}
    except DocumentError as error:
        definitions.report.add_placeholder(DocumentError(f"{error}: the handler of the route {name}"))
        return {"type": PLACEHOLDER, "name": f"{export}{module}"}


def _message_policies(handler: dict[str, Any]) -> str:
    """Return the names of the policies that the handler of a WebSocket applies to each message; empty if none."""
    options = handler.get("options")
    sides = options.get("policies") if isinstance(options, dict) else None
    listed = chain(*filter(None, sides.values())) if isinstance(sides, dict) else ()
    return ", ".join(str(one.get("export")) + _module(one) if isinstance(one, dict) else str(one) for one in listed)


def _module(handler: dict[str, Any]) -> str:
    found = _IMPORT.fullmatch(str(handler.get("module", "")))
    return f" of {found[1]}" if found and found[1] != "@zuplo/runtime" else ""


def _route_path(document: Document, path: str, item: dict[str, Any], at: Path, report: Report) -> str:
    if found := VARIABLE.search(path):
        raise document.error(f"{path}: a path has no variables; write the value of {found[0]}", *at)
    options = item.get("x-zuplo-path")
    mode = options.get("pathMode", "open-api") if isinstance(options, dict) else "open-api"
    if mode == "open-api":
        return route_path(path)
    if mode != "url-pattern":
        raise document.error(f"the path mode {mode} is not supported", *at)
    try:
        pattern = Pattern.parse(path)
    except ValueError as error:
        raise document.error(f"the pattern {path} is not supported: {error}", *at) from None
    if pattern.note:
        report.skip(document.error(f"{path} is imported as {pattern.path}: {pattern.note}", *at))
    return pattern.path


def _url(document: Document, handler: dict[str, Any], path: str, at: Path, asked: Options) -> str:
    options, at = mapping(document, handler.get("options", {}), (*at, "options"))
    tail = path.replace("...}", "}")
    if handler["export"] == "urlForwardHandler":
        pattern = asked.server or options.get("baseUrl")
    else:
        pattern, tail = options.get("rewritePattern"), ""
    if not isinstance(pattern, str):
        raise document.error("has no URL to forward to", *at)
    if asked.server:
        pattern = _LEADING_VARIABLE.sub(lambda _: asked.server, pattern)

    def value(match: re.Match[str]) -> str:
        return _value(document, match, path.replace("...}", "}"), at, asked)

    pattern = _PLACE.sub(value, _SEARCH.sub("", pattern))
    return (pattern.rstrip("/") + tail) if tail else pattern


def _value(document: Document, match: re.Match[str], path: str, at: Path, asked: Options) -> str:
    """Return what replaces a variable of a URL. Raises DocumentError for one whose value is unknown."""
    if match["call"] is None:
        value = value_of(document, match, at, asked)
        if isinstance(value, Secret):
            raise document.error(f"{match[0]} is a secret, which a URL would show; use upstream_credential", *at)
        return value
    kind, _, name = match["call"].partition(".")
    if kind == "params":
        return f"{{{UNNAMED if name.isdigit() else name}}}"
    if kind == "pathname":
        return path
    raise document.error(f"only Zuplo knows the value of {match[0]}; replace it by its value", *at)


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
    try:
        origins = ["*"] if cors == "anything-goes" else definitions.origins(cors)
    except DocumentError as error:
        definitions.report.skip(error)
        return []
    if origins is None:
        message = f"the CORS policy {cors} is defined in config/policies.json: pass that file with --policies"
        definitions.report.skip(document.error(message, *at, "corsPolicy"))
        return []
    return [{"type": "cors", "options": {"allowed_origins": origins}}]
