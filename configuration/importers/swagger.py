"""Read Swagger 2.0 as the OpenAPI 3 that its routes would have: its paths, with servers and streams."""

from __future__ import annotations

from copy import copy
from typing import Any

from configuration.importers.openapi import METHODS
from configuration.yaml_documents import Document

_STREAM = "text/event-stream"


def is_swagger(data: Any) -> bool:
    """Return whether the data is a Swagger document."""
    return isinstance(data, dict) and "swagger" in data


def as_openapi(document: Document) -> Document:
    """Return the document in the terms of OpenAPI 3, its places unchanged. Raises DocumentError for another version."""
    data = document.data
    if not str(data["swagger"]).startswith("2."):
        raise document.error(f"Swagger {data['swagger']} is not supported; 2.0 and OpenAPI 3.x are", "swagger")
    converted = copy(document)
    paths = data.get("paths", {})
    converted.data = {name: value for name, value in data.items() if name != "swagger"} | {
        "openapi": "3.0.0",
        "servers": _servers(data, data.get("schemes")),
        "paths": {path: _item(data, node) for path, node in paths.items()} if isinstance(paths, dict) else paths,
    }
    return converted


def _servers(data: dict[str, Any], schemes: Any) -> list[dict[str, str]]:
    """Return the server of a document or an operation: by HTTPS if it is one of the schemes, or none is named."""
    host, base_path = data.get("host"), data.get("basePath") or ""
    if not host:
        return [{"url": f"{base_path}"}] if base_path else []
    names = [scheme for scheme in schemes if isinstance(scheme, str)] if isinstance(schemes, list) else []
    scheme = "https" if "https" in names or not names else names[0]
    return [{"url": f"{scheme}://{host}{base_path}"}]


def _item(data: dict[str, Any], node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {name: _operation(data, value) if name in METHODS else value for name, value in node.items()}


def _operation(data: dict[str, Any], node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    more: dict[str, Any] = {}
    if node.get("schemes"):
        more["servers"] = _servers(data, node["schemes"])
    produced = node.get("produces", data.get("produces"))
    if isinstance(produced, list) and _STREAM in produced:
        more["responses"] = {"200": {"content": {_STREAM: {}}}}
    return node | more
