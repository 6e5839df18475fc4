"""Parameters of operations in OpenAPI's format: what the readers of paths, query strings and headers accept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
NOT_BLANK: Schema = {"type": "string", "minLength": 1, "pattern": r"\S"}
"""An empty query parameter is refused, as it is usually the unset variable of a script."""
ID: Schema = {"type": "string", "pattern": "^([0-9]{1,18}|[0-8][0-9]{18}|9[01][0-9]{17})$"}
"""An id below 9.2 × 10^18; the last ones of 63 bits are left out."""
INSTANT: Schema = {"type": "string", "format": "date-time"}
POSITION: Schema = {"anyOf": [{"enum": ["earliest", "latest"]}, ID, INSTANT]}
POSITIONS: Schema = {"anyOf": [*POSITION["anyOf"], {"type": "string", "pattern": "^[0-9]{1,18}(-[0-9]{1,18})+$"}]}
"""Of several channels: an id has a part for each."""
INTERVAL: Schema = {"type": "string", "pattern": "^([1-9][0-9]{1,5}ms|[1-9][0-9]{0,2}s|[1-5]?[0-9]m)$"}
IDEMPOTENCY_KEY: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r'^(?!\s*""\s*$).*\S'}
SEGMENT: Schema = {"type": "string", "pattern": r"^(?!\.{1,2}(;|$))[^/\\\x00-\x1f\x7f]+$"}
SEGMENTS: Schema = {"type": "string", "pattern": r"^[^\\\x00-\x1f\x7f]*$"}
"""Of a ``{rest...}``, and the address of a channel, in which slashes may be percent-encoded."""
PARAMETER = re.compile(r"\{([^{}]+?)(\.\.\.)?\}")
"""A parameter in the template of a path."""


def whole_number(least: int, most: int) -> Schema:
    """Return the schema of a whole number."""
    return {"type": "integer", "minimum": least, "maximum": most}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query string, or a header."""

    description: str
    schema: Schema = field(default_factory=lambda: NOT_BLANK)
    is_required: bool = False

    def format(self, name: str, place: str) -> dict[str, Any]:
        """Return it in OpenAPI's format; ``place`` is ``query`` or ``header``."""
        required = {"required": True} if self.is_required else {}
        return {"name": name, "in": place, **required, "description": self.description, "schema": dict(self.schema)}


def format_path_parameters(path: str) -> list[dict[str, Any]]:
    """Return the parameters in the template of a path."""
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": dict(SEGMENTS if is_rest or name == "address" else SEGMENT),
            **({"description": "The rest of the path, slashes included."} if is_rest else {}),
        }
        for name, is_rest in PARAMETER.findall(path)
    ]
