"""The right to name hooks, Python functions that the gateway runs, in the policies of routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError

RIGHT = "routes.name_hook"
REFUSED = "You lack the right to name, change or remove functions in the policies of a route (routes.name_hook)."
COMMANDS = ("up", "manage.py ")
"""How the authors begin that are no operators but commands, which whoever runs the gateway's host may run."""


def check_hooks(before: Any, after: Any, *, by: str) -> None:
    """Raise ValidationError if the hooks of a route's policies change and the author lacks the right to name hooks.

    It is checked before the policies are validated, as that imports the modules that they name.
    """
    if hooks_of(before) != hooks_of(after) and not may_name_hooks(by):
        raise ValidationError({"policies": REFUSED})


def hooks_of(policies: Any) -> list[dict[str, Any]]:
    """Return the policies that name a function, in order; other values are left to the validation."""
    if not isinstance(policies, list | tuple):
        return []
    return [
        {"type": policy.get("type"), "options": policy["options"], "mode": policy.get("mode", "enforce")}
        for policy in policies
        if isinstance(policy, Mapping)
        and isinstance(policy.get("options"), Mapping)
        and policy["options"].get("function") is not None
    ]


def may_name_hooks(by: str) -> bool:
    """Return whether an author may name hooks: an operator with the right, or a command on the gateway's host."""
    account = User.objects.filter(username=by).first()
    return by.startswith(COMMANDS) if account is None else account.has_perm(RIGHT)
