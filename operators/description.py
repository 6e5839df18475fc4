"""The parts of the API's description that every operation shares: refusals, bounds and authentication."""

from __future__ import annotations

from typing import Any

from drf_spectacular.authentication import TokenScheme

from operators.filters import EVERY
from operators.paging import LIMIT_DEFAULT, LIMIT_MAX

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
REQUEST = "Request"
"""The end of the name of each schema of a request's body."""
IN_A_PATH = {"^[^/]+$": r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f-\x9f]+$", "^.+?$": r"^(?!\.{1,2}$)[^\x00-\x1f\x7f-\x9f]+$"}
"""What a parameter of the path may be, by the pattern of its route: the server accepts no control characters."""
NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
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


def describe_bounds(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add what the strict readers of bodies, query strings and paths refuse, whichever collection they belong to."""
    for name, component in result["components"]["schemas"].items():
        if name.endswith(REQUEST) and "properties" in component:
            component["additionalProperties"] = False
    for operations in result["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] |= _bounds_of(parameter)
    return result


def _bounds_of(parameter: dict[str, Any]) -> dict[str, Any]:
    if parameter["in"] == "path":
        pattern = parameter["schema"].get("pattern", "^[^/]+$")
        return {"pattern": IN_A_PATH.get(pattern, pattern)}
    if parameter["name"] == "limit":
        return {"minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    if parameter["name"] == EVERY:
        return {"enum": [True]}
    return {"minLength": 1, "pattern": NOT_BLANK} if parameter["schema"] == {"type": "string"} else {}


class OperatorTokenScheme(TokenScheme):  # type: ignore[no-untyped-call]
    """Describes tokens of operators as the framework's, which they are to clients."""

    target_class = "accounts.authentication.OperatorTokens"
