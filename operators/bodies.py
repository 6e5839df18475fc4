"""Parse bodies of requests to the management API: strict JSON of bounded size and depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from gateway.refusals import Reason, Refused
from gateway.wire.strict_json import parse

BODY_MAX_BYTES = 1024 * 1024


class BoundedJsonParser(BaseParser):
    """Parses JSON as strictly as the data plane does."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return the parsed body. Raises Refused ``too-large`` or ParseError."""
        raw = stream.read(BODY_MAX_BYTES + 1)
        if len(raw) > BODY_MAX_BYTES:
            raise Refused(Reason.TOO_LARGE, f"The body must have at most {BODY_MAX_BYTES} bytes.")
        try:
            return parse(raw)
        except Refused as refused:
            raise ParseError(refused.detail) from None
