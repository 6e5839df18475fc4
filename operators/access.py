"""Who may use the management API: staff, each with the permissions that the admin asks for too."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

_VERBS = {"list": "view", "retrieve": "view", "create": "add", "partial_update": "change", "destroy": "delete"}


class OperatorMay(BasePermission):
    """Staff with Django's permission for the model; a view's ``rights`` names that of its own actions."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Say whether this operator may do this."""
        user = request.user
        if not user.is_authenticated or not user.is_active or not user.is_staff:
            return False
        if view.action is None:
            return True
        return user.has_perm(permission_for(view))


def permission_for(view: Any) -> str:
    """Give the permission that a view's action needs."""
    own: dict[str, str] = getattr(view, "rights", {})
    if view.action in own:
        return own[view.action]
    meta = view.queryset.model._meta
    return f"{meta.app_label}.{_VERBS.get(view.action, 'change')}_{meta.model_name}"
