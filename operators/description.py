"""The parts of the API's description that every operation shares: its refusals and its authentication."""

from __future__ import annotations

from typing import Any

from drf_spectacular.authentication import TokenScheme

PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string", "description": "A slug of docs/refusals.md."},
        "retry_after_s": {"type": "number"},
        "errors": {
            "type": "object",
            "description": "The errors of each invalid field, such as `limits[0].per`.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    },
}
REFUSED = {
    "description": "Refused: 400, 401, 403, 404, 405, 413, 503 …",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def describe_problems(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the problem response to every operation."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"]["default"] = REFUSED
    return result


class OperatorTokenScheme(TokenScheme):  # type: ignore[no-untyped-call]
    """Describes tokens of operators as the framework's, which they are to clients."""

    target_class = "accounts.authentication.OperatorTokens"
