"""Base classes of the management API's collections: they write by services and refuse unknown fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

from django.http import Http404
from rest_framework import serializers, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from operators.filters import require_known, require_single_values

ID_MAX_CHARS = 1024
_TYPES: tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], tuple[type, ...], str], ...] = (
    (serializers.BooleanField, (bool,), "Must be true or false."),
    (serializers.IntegerField, (int, float), "Must be a whole number."),
    (serializers.FloatField, (int, float), "Must be a number."),
    (serializers.DateTimeField, (str,), "Must be a string."),
    (serializers.CharField, (str,), "Must be a string."),
    (serializers.SlugRelatedField, (str,), "Must be a string."),
)


class Fields(serializers.Serializer[Any]):
    """The fields of an object. Unknown and read-only fields are refused here; the service validates the values."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the parsed fields. Raises ValidationError with every unknown and every read-only field."""
        if isinstance(data, dict):
            writable = [name for name, field in self.fields.items() if not field.read_only]
            known_names = ", ".join(writable) or "none"
            unknown = {
                str(name): f"Unknown field; the fields are {known_names}." for name in data if name not in self.fields
            }
            fixed = {name: "Cannot be set." for name in data if name in self.fields and self.fields[name].read_only}
            if errors := unknown | fixed | self._of_other_types(data):
                raise ValidationError(errors)
        return super().to_internal_value(data)

    def _of_other_types(self, data: dict[str, Any]) -> dict[str, str]:
        """Return an error for each value that the framework would turn into another type, as `1` into a text."""
        return {
            name: error
            for name, field in self.fields.items()
            if data.get(name) is not None and (error := _type_error(field, data[name]))
        }

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the representation of a row, or the fields of a dictionary."""
        values = instance if isinstance(instance, dict) else {"id": instance.pk, **instance.representation()}
        return {name: values[name] for name, field in self.fields.items() if not field.write_only and name in values}


def _type_error(field: serializers.Field[Any, Any, Any, Any], value: Any) -> str:
    for kind, types, error in _TYPES:
        if isinstance(field, kind):
            is_one = isinstance(value, types) and (bool in types or not isinstance(value, bool))
            return "" if is_one else error
    return ""


class Collection(viewsets.GenericViewSet[Any]):
    """A read-only collection of rows."""

    ordering: tuple[str, ...] = ("name",)
    bulk_actions: tuple[str, ...] = ()
    """Actions on all rows that the filters of the list select; they need a filter, or ``all=true``."""
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The query parameters of other actions, by action; an action that is not named has none."""

    @property
    def operator(self) -> str:
        """The name of the operator, for the audit log."""
        return str(self.request.user.get_username())

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse query parameters that are unknown, empty or repeated, once the caller is authenticated.

        Ignored, ``?dry_run=true`` would promise what a deletion does not do.
        """
        super().initial(request, *args, **kwargs)
        if request.method not in self.allowed_methods:
            return  # It is refused as such, whatever its parameters.
        require_single_values(request)
        if self.action not in ("metadata", "list", *self.bulk_actions):
            require_known(request, self.parameters.get(self.action, ()))

    def get_object(self) -> Any:
        """Return the row in the URL. Raises Http404."""
        key = self.kwargs[self.lookup_url_kwarg or self.lookup_field]
        if "\x00" in key or len(key) > ID_MAX_CHARS:
            raise Http404
        return super().get_object()

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the objects, page by page."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one object."""
        return Response(self.get_serializer(self.get_object()).data)

    def filter_queryset(self, queryset: Any) -> Any:
        """Return the filtered rows of a list or a bulk action; other actions find their row by the URL alone."""
        return super().filter_queryset(queryset) if self.action in ("list", *self.bulk_actions) else queryset

    def read_body(self, serializer_class: type[Fields], *, partial: bool = False) -> dict[str, Any]:
        """Return the validated fields of the body. Raises ValidationError."""
        serializer = serializer_class(data=self.request.data, partial=partial, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


class Objects(Collection):
    """A collection of rows that can be created, updated and deleted, each with one call of a service."""

    create_row: Callable[..., Any]
    update_row: Callable[..., Any]
    delete_row: Callable[..., Any]

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Create an object."""
        row = self.create_row(**self.read_body(self._fields()), by=self.operator)
        headers = {
            "Location": request.build_absolute_uri(self.reverse_action("detail", [getattr(row, self.lookup_field)]))
        }
        return Response(self.get_serializer(row).data, 201, headers=headers)

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Update the fields in the body."""
        row = self.get_object()
        changes = self.read_body(self._fields(), partial=True)
        if self.lookup_field in changes and changes.pop(self.lookup_field) != getattr(row, self.lookup_field):
            raise ValidationError({self.lookup_field: "Cannot be changed; create another one."})
        return Response(self.get_serializer(self.update_row(row, **changes, by=self.operator)).data)

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete an object."""
        self.delete_row(self.get_object(), by=self.operator)
        return Response(status=204)

    def _fields(self) -> type[Fields]:
        return cast("type[Fields]", self.get_serializer_class())
