"""Rolling the configuration back, over the management API."""

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
    """Staff who may add, change and delete every kind of object that the configuration is made of."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Say whether this operator may."""
        user = request.user
        models: list[type[Model]] = [*(kind.model for kind in KINDS), Key]
        metas = [model._meta for model in models]
        return user.is_staff and user.has_perms(
            [f"{meta.app_label}.{verb}_{meta.model_name}" for meta in metas for verb in ("add", "change", "delete")]
        )


class RollbackFields(Fields):
    """Where to go back to."""

    to = serializers.DateTimeField()
    dry_run = serializers.BooleanField(default=False)


class RolledBackFields(DifferencesFields):
    """What has changed, or would."""

    dry_run = serializers.BooleanField(read_only=True)


class Rollbacks(Collection):
    """Going back to the configuration of an instant."""

    queryset = Change.objects.none()
    serializer_class = RollbackFields
    permission_classes = (MayChangeAll,)
    http_method_names = ("post", "options")

    @extend_schema(request=RollbackFields, responses=RolledBackFields)
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make the configuration what it was at an instant, as a new change; revoked keys stay revoked."""
        wanted = self.read_body(RollbackFields)
        diff = roll_back(wanted["to"], by=self.operator, dry_run=wanted["dry_run"])
        return Response({"changes": render_diff(diff), "dry_run": wanted["dry_run"]})


def register(router: BaseRouter) -> None:
    """Add this app's addresses."""
    router.register("audit/rollback", Rollbacks, basename="rollback")
