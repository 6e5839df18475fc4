"""What every collection of the management API does: reads rows, hands writes to services, refuses unknown fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.http import Http404
from rest_framework import serializers, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

ID_MAX_CHARS = 1024


class Fields(serializers.Serializer[Any]):
    """Fields of an object. What they mean is checked by the service; here unknown ones are refused."""

    def to_internal_value(self, data: Any) -> Any:
        """Read the fields. Raises ValidationError that names each one at fault."""
        if isinstance(data, dict):
            writable = [name for name, field in self.fields.items() if not field.read_only]
            known = ", ".join(writable) or "none"
            unknown = {str(name): f"Unknown field; there are {known}." for name in data if name not in self.fields}
            fixed = {name: "Cannot be set." for name in data if name in self.fields and self.fields[name].read_only}
            if unknown or fixed:
                raise ValidationError(unknown | fixed)
        return super().to_internal_value(data)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Say a row as the configuration does; plain values stay as they are."""
        said = instance if isinstance(instance, dict) else {"id": instance.pk, **instance.representation()}
        return {name: said[name] for name, field in self.fields.items() if not field.write_only and name in said}


class Collection(viewsets.GenericViewSet[Any]):
    """Rows of one kind, to be read."""

    ordering: tuple[str, ...] = ("name",)

    @property
    def operator(self) -> str:
        """Who asks, for the audit log."""
        return str(self.request.user.get_username())

    def get_object(self) -> Any:
        """Give the row that the address names. Raises Http404."""
        wanted = self.kwargs[self.lookup_url_kwarg or self.lookup_field]
        if "\x00" in wanted or len(wanted) > ID_MAX_CHARS:
            raise Http404
        return super().get_object()

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the objects, a page at a time."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Give one object."""
        return Response(self.get_serializer(self.get_object()).data)

    def filter_queryset(self, queryset: Any) -> Any:
        """Filter lists; one object is named by its address alone."""
        return super().filter_queryset(queryset) if self.action == "list" else queryset

    def read_body(self, serializer_class: type[Fields], *, partial: bool = False) -> dict[str, Any]:
        """Read the body. Raises ValidationError."""
        serializer = serializer_class(data=self.request.data, partial=partial, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class Objects(Collection):
    """Rows of one kind, to be read, made, changed and deleted: each write is one call of a service."""

    create_row: Callable[..., Any]
    update_row: Callable[..., Any]
    delete_row: Callable[..., Any]

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make an object."""
        row = self.create_row(**self.read_body(self._fields()), by=self.operator)
        headers = {
            "Location": request.build_absolute_uri(self.reverse_action("detail", [getattr(row, self.lookup_field)]))
        }
        return Response(self.get_serializer(row).data, 201, headers=headers)

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the fields that the body names."""
        row = self.get_object()
        changes = self.read_body(self._fields(), partial=True)
        if self.lookup_field in changes and changes.pop(self.lookup_field) != getattr(row, self.lookup_field):
            raise ValidationError({self.lookup_field: "Cannot be changed; make a new one."})
        return Response(self.get_serializer(self.update_row(row, **changes, by=self.operator)).data)

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete an object."""
        self.delete_row(self.get_object(), by=self.operator)
        return Response(status=204)

    def _fields(self) -> type[Fields]:
        return cast("type[Fields]", self.get_serializer_class())
