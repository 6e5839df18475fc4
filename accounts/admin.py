"""Operators and their tokens in the admin, and its sign-in form."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from accounts import account_admin, token_admin  # noqa: F401 - register their pages
from accounts.trail import sign_in_failed


class OperatorSignIn(AuthenticationForm):  # type: ignore[misc]
    """The admin's sign-in form; an account that is no operator's counts as a failed sign-in."""

    request: Any

    def confirm_login_allowed(self, user: User) -> None:
        """Raise ValidationError for an account that may not use the admin."""
        try:
            super().confirm_login_allowed(user)
        except ValidationError:
            sign_in_failed(user.get_username(), "with a password, but no operator", self.request)
            raise


admin.site.login_form = OperatorSignIn
