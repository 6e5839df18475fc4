"""Cursor pagination: ``{"results": […], "next": URL or null}``. Every page costs one query, however far it is."""

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
    """Pages that continue after the last row of the previous one, so new rows do not shift them."""

    page_size = LIMIT_DEFAULT
    page_size_query_param = "limit"
    page_size_query_description = f"The maximum number of results, from 1 to {LIMIT_MAX}."
    cursor_query_description = "The position of the page; taken from `next`."

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        """Return the ordering of the view."""
        ordering: tuple[str, ...] = view.ordering
        return ordering

    def get_page_size(self, request: Request) -> int:
        """Return the ``limit`` of the request, or the default. Raises ValidationError."""
        limit = request.query_params.get("limit", str(LIMIT_DEFAULT))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= LIMIT_MAX):
            raise ValidationError({"limit": f"Must be a whole number from 1 to {LIMIT_MAX}."})
        return int(limit)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        """Return one page of rows. Raises ValidationError for a cursor of another list."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, OverflowError, DataError, InvalidPosition):
            raise _invalid_cursor() from None

    def decode_cursor(self, request: Request) -> Any:
        """Return the decoded cursor. Raises ValidationError for an invalid one."""
        try:
            return super().decode_cursor(request)
        except NotFound:
            raise _invalid_cursor() from None

    def get_paginated_response(self, data: Any) -> Response:
        """Return the response with one page."""
        return Response({"results": data, "next": self.get_next_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of a page."""
        return {
            "type": "object",
            "required": ["results", "next"],
            "properties": {
                "results": schema,
                "next": {
                    "type": "string",
                    "format": "uri",
                    "nullable": True,
                    "description": "The URL of the next page; null on the last one.",
                },
            },
        }


def _invalid_cursor() -> ValidationError:
    return ValidationError({"cursor": "Is invalid; take it from `next`."})
