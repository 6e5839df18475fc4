"""Permissions of the management API: staff only, with the same permissions as in the admin."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

_VERBS = {"list": "view", "retrieve": "view", "create": "add", "partial_update": "change", "destroy": "delete"}


class OperatorMay(BasePermission):
    """Requires staff with Django's permission for the model; a view's ``rights`` names those of its own actions."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the operator may run the view's action."""
        user = request.user
        if not user.is_authenticated or not user.is_active or not user.is_staff:
            return False
        if view.action is None:
            return True
        return user.has_perm(permission_for(view))


def permission_for(view: Any) -> str:
    """Return the permission that a view's action requires."""
    own: dict[str, str] = getattr(view, "rights", {})
    if view.action in own:
        return own[view.action]
    meta = view.queryset.model._meta
    return f"{meta.app_label}.{_VERBS.get(view.action, 'change')}_{meta.model_name}"
