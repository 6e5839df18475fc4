"""Tokens of the management API in the admin: an operator's own, and all for those with the right to view tokens."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.enums import ActionVariant

from accounts import tokens
from accounts.models import Token
from operators.admin import ServiceAdmin, ServiceForm, action, display

SHOWN = ("name", "prefix", "account", "created_at", "last_used_at", "expires_at", "revoked_at")


class TokenForm(ServiceForm):
    """The form of a new token of the operator who fills it in."""

    operator: User
    """The operator; set by the page."""

    class Meta:
        model = Token
        fields = ("name", "expires_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "expires_at" in self.fields:
            self.fields[
                "expires_at"
            ].help_text = f"In UTC; empty for {settings.TOKEN_DAYS} days from now, which is the most."

    def create(self, fields: dict[str, Any]) -> Token:
        """Issue the token; the row holds its text until the request ends."""
        token, text = tokens.issue_token(self.operator, **fields, by=self.by)
        token.text = text  # type: ignore[attr-defined]
        return token


@admin.register(Token)
class Tokens(ServiceAdmin):
    """Tokens of the management API. They are issued and revoked here, never changed or deleted."""

    form: type[forms.ModelForm[Any]] = TokenForm
    list_display = ("name", "prefix", "account", "shown_state", "last_used_at", "expires_at", "created_at")
    list_select_related = ("account",)
    list_filter = (("account", admin.RelatedOnlyFieldListFilter), ("revoked_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "prefix", "account__username")
    ordering = ("-created_at",)
    actions_detail = ("revoke",)
    fieldsets = ((None, {"fields": ("name", "expires_at")}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Token]:
        """Return the tokens that the operator may see."""
        return Token.objects.visible_to(_operator(request)).select_related("account")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form's class, bound to the operator."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"operator": _operator(request)})

    def get_fieldsets(self, request: HttpRequest, obj: Token | None = None) -> Any:
        """Return what is known of an existing token."""
        return ((None, {"fields": SHOWN}),) if obj else self.fieldsets

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether this is an operator: each may have tokens."""
        return request.user.is_active and request.user.is_staff

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether this is an operator; the list has its own tokens alone, unless it may view all."""
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether this is an operator, who issues tokens of itself alone."""
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False."""
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the operator may revoke a token: its own, or any with the right to delete tokens."""
        token = self.get_queryset(request).filter(pk=object_id).first() if str(object_id).isdigit() else None
        return token is not None and may_revoke(_operator(request), token)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Show the new token once."""
        return self._page(request, obj, "shown_once", "Copy the token now", text=obj.text)

    @action(description="Revoke", url_path="revoke", icon="block", variant=ActionVariant.DANGER, permissions=["revoke"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, then revoke the token."""
        token = self.get_queryset(request).filter(pk=object_id).first() if object_id.isdigit() else None
        if token is None:
            raise Http404
        if not may_revoke(_operator(request), token):
            raise PermissionDenied
        if request.method != "POST":
            return self._page(request, token, "revoke", f"Revoke {token}")
        tokens.revoke_token(token, by=request.user.get_username())
        self.message_user(request, f"{token} is revoked.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:accounts_token_change", args=[token.pk]))

    @display(description="State", label={"active": "success", "expired": "warning", "revoked": "danger"})
    def shown_state(self, token: Token) -> str:
        return token.state(timezone.now())

    def _page(self, request: HttpRequest, token: Token, page: str, title: str, **more: Any) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "original": token, "title": title}
        context |= {"api_url": settings.ADMIN_PUBLIC_URL, **more}
        response = TemplateResponse(request, f"admin/accounts/token/{page}.html", context)
        response["Cache-Control"] = "no-store"
        return response


def may_revoke(operator: User, token: Token) -> bool:
    """Return whether an operator may revoke a token that it sees."""
    return token.account_id == operator.pk or operator.has_perm("accounts.delete_token")


def _operator(request: HttpRequest) -> User:
    return cast("User", request.user)
