"""Operators' accounts in the admin: nobody gives, or takes over from an account, rights above their own."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from operators.accounts import exceeds, held

admin.site.unregister(Group)
admin.site.unregister(User)


class AccountForm(UserChangeForm):  # type: ignore[misc]
    """A form that refuses to give rights that the operator lacks."""

    operator: User
    """The operator; set by the page."""

    def clean(self) -> dict[str, Any]:
        """Return the fields. Adds an error where one of them gives a right above the operator's own."""
        fields: dict[str, Any] = super().clean() or self.cleaned_data
        if self.operator.is_superuser:
            return fields
        if fields.get("is_superuser") and not self.instance.is_superuser:
            self.add_error("is_superuser", ValidationError("Only a superuser can make a superuser."))
        own = held(self.operator)
        lacking = [one for one in fields.get("user_permissions", ()) if one.pk not in own]
        if lacking:
            self.add_error("user_permissions", f"You lack these yourself: {', '.join(map(str, lacking))}.")
        for group in fields.get("groups", ()):
            if not set(group.permissions.values_list("pk", flat=True)) <= own:
                self.add_error("groups", f"You lack rights of the group {group} yourself.")
        return fields


@admin.register(User)
class Users(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """Operators, who sign in to the admin."""

    form = AccountForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("is_staff", "is_active")

    def get_form(self, request: HttpRequest, obj: User | None = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form's class, bound to the operator."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"operator": request.user})

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Return whether the operator may change accounts; this one, where it is given: its password too."""
        return super().has_change_permission(request, obj) and _may_take_over(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Return whether the operator may delete accounts; this one, where it is given."""
        return super().has_delete_permission(request, obj) and _may_take_over(request, obj)


def _may_take_over(request: HttpRequest, account: User | None) -> bool:
    return account is None or not exceeds(account, cast("User", request.user))
