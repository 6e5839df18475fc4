"""What the description of the management API says of every operation alike: how it is refused."""

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
            "description": "Each field at fault, such as `limits[0].per`, with what is wrong with it.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    },
}
REFUSED = {
    "description": "Refused: 400, 401, 403, 404, 405, 413, 503 …",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def describe_problems(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the refusal to every operation."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"]["default"] = REFUSED
    return result


class DigestedTokenScheme(TokenScheme):  # type: ignore[no-untyped-call]
    """Describes our tokens as the framework's, which they are to callers."""

    target_class = "operators.tokens.DigestedTokenAuthentication"
