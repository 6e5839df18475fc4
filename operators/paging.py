"""Pages of lists: ``{"results": […], "next": URL or null}``, at the cost of one query however far one has read."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError as InvalidPosition
from django.db import DataError
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
PAGE_PARAMETERS = ("limit", "cursor")


class Pages(CursorPagination):
    """Reads on from the last row of the page before, so rows made meanwhile shift nothing."""

    page_size = LIMIT_DEFAULT
    page_size_query_param = "limit"
    page_size_query_description = f"How many results at most, from 1 to {LIMIT_MAX}."
    cursor_query_description = "Where to read on; taken from `next`."

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        """Give the order that the list names."""
        ordering: tuple[str, ...] = view.ordering
        return ordering

    def get_page_size(self, request: Request) -> int:
        """Give how many results the caller wants. Raises ValidationError."""
        wanted = request.query_params.get("limit", str(LIMIT_DEFAULT))
        if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 6 and 1 <= int(wanted) <= LIMIT_MAX):
            raise ValidationError({"limit": f"A whole number from 1 to {LIMIT_MAX}."})
        return int(wanted)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        """Read one page. Raises ValidationError for a cursor whose position is none of this list."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, OverflowError, DataError, InvalidPosition):
            raise _no_cursor() from None

    def decode_cursor(self, request: Request) -> Any:
        """Read the cursor. Raises ValidationError for one that is none of ours."""
        try:
            return super().decode_cursor(request)
        except NotFound:
            raise _no_cursor() from None

    def get_paginated_response(self, data: Any) -> Response:
        """Give one page."""
        return Response({"results": data, "next": self.get_next_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe one page."""
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {
                    "type": "string",
                    "format": "uri",
                    "nullable": True,
                    "description": "The address of the next page; null at the end.",
                },
            },
        }


def _no_cursor() -> ValidationError:
    return ValidationError({"cursor": "Is none; take it from `next`."})
