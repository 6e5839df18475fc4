"""Rollback of the configuration in the management API."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from audit.api import DifferencesFields, render_diff
from audit.models import Change
from configuration.kinds import KINDS
from configuration.rollback import roll_back
from keys.models import Key
from operators.objects import Collection, Fields


class MayChangeAll(BasePermission):
    """Requires staff with the permissions to add, change and delete every kind of object of the configuration."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the operator has all of these permissions."""
        user = request.user
        models: list[type[Model]] = [*(kind.model for kind in KINDS), Key]
        metas = [model._meta for model in models]
        return user.is_staff and user.has_perms(
            [f"{meta.app_label}.{verb}_{meta.model_name}" for meta in metas for verb in ("add", "change", "delete")]
        )


class RollbackFields(Fields):
    """The request: the instant to roll back to."""

    to = serializers.DateTimeField()
    dry_run = serializers.BooleanField(default=False)


class RolledBackFields(DifferencesFields):
    """The response: the changes that were made, or would be."""

    dry_run = serializers.BooleanField(read_only=True)


class Rollbacks(Collection):
    """Rollbacks to the configuration of an instant."""

    queryset = Change.objects.none()
    serializer_class = RollbackFields
    permission_classes = (MayChangeAll,)
    http_method_names = ("post", "options")

    @extend_schema(request=RollbackFields, responses={200: RolledBackFields})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Restore the configuration of an instant, as new changes; revoked keys stay revoked."""
        body = self.read_body(RollbackFields)
        diff = roll_back(body["to"], by=self.operator, dry_run=body["dry_run"])
        return Response({"changes": render_diff(diff), "dry_run": body["dry_run"]})


def register(router: BaseRouter) -> None:
    """Add this app's collection."""
    router.register("audit/rollback", Rollbacks, basename="rollback")
