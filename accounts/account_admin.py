"""Operators' accounts in the admin: nobody gives, or takes over from an account, rights above their own."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts import second_factor
from accounts.models import Authenticator
from accounts.rights import exceeds, held
from accounts.sessions import end_sessions
from operators.admin import action, display

RESET = "accounts.reset_authenticator"

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
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "shown_second_factor", "last_login")
    list_filter = ("is_staff", "is_active")
    actions_detail = ("reset_second_factor",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Return the accounts, each with whether it has a second factor."""
        confirmed = Authenticator.objects.filter(account=OuterRef("pk")).exclude(confirmed_at=None)
        accounts: QuerySet[User] = super().get_queryset(request)
        return accounts.annotate(has_second_factor=Exists(confirmed))

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

    def has_reset_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the operator may reset second factors."""
        return request.user.has_perm(RESET)

    @display(description="Second factor", boolean=True)
    def shown_second_factor(self, account: Any) -> bool:
        return bool(account.has_second_factor)

    @action(
        description="Reset second factor",
        url_path="reset-second-factor",
        icon="phonelink_erase",
        variant=ActionVariant.DANGER,
        permissions=["reset"],
    )
    def reset_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, then remove the second factor of somebody who has lost it, and end its sessions."""
        account = User.objects.filter(pk=object_id).first() if object_id.isdigit() else None
        if account is None:
            raise Http404
        if not self.has_reset_permission(request) or not _may_take_over(request, account):
            raise PermissionDenied
        authenticator = second_factor.authenticator_of(account)
        if request.method != "POST" and authenticator is not None:
            context = {**self.admin_site.each_context(request), "opts": self.opts, "original": account}
            title = {"title": f"Reset the second factor of {account}"}
            return TemplateResponse(request, "admin/accounts/reset_second_factor.html", context | title)
        if authenticator is None:
            self.message_user(request, f"{account} has no second factor.", messages.WARNING)
        else:
            second_factor.remove(authenticator, by=request.user.get_username())
            end_sessions(account)
            self.message_user(request, f"The second factor of {account} is reset, and its sessions have ended.")
        return HttpResponseRedirect(reverse("admin:auth_user_change", args=[account.pk]))


def _may_take_over(request: HttpRequest, account: User | None) -> bool:
    return account is None or not exceeds(account, cast("User", request.user))
