"""Keys and JWT issuers in the admin; a new key is shown once, when it is issued or rotated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from consumers.admin import limits_field
from consumers.scopes import every_scope
from gateway.snapshot.documents import ALGORITHMS
from keys import issuers, services
from keys.models import JwtIssuer, Key
from operators.admin import ServiceAdmin, ServiceForm, action, chips, display
from operators.attempts import Budget, UsedUp, attempts
from operators.form_fields import JsonField, LinesField

HISTORY = ("id", "created_at", "last_used_at", "revoked_at", "revoked_reason", "rotated_from")
OVERLAPS = (
    (0, "At once", "The old key is revoked and its connections close within a second."),
    (3600, "One hour", "Enough to change one service by hand."),
    (86400, "24 hours", "Enough for a deployment a day."),
    (604800, "7 days", "For keys that are stored in many places."),
)
ISSUED = Budget("issue-key", 60, 60)
"""Keys that one operator may issue on the page."""


class KeyForm(ServiceForm):
    """A key's form."""

    scopes = LinesField(
        placeholder="publish:sensors/*",
        help_text="One per line: call:ROUTE, publish:ADDRESS, subscribe:ADDRESS, jobs:TYPE; * for all.",
    )
    allowed_ips = LinesField(rows=2, placeholder="203.0.113.0/24", help_text="Networks, one per line; empty for all.")
    allowed_origins = LinesField(
        rows=2, placeholder="https://app.example", help_text="Origins of browsers, one per line; empty for all."
    )
    limits = limits_field("Own limits", "Each replaces the consumer's limit with the same metric and per.")
    metadata = JsonField(empty=dict, rows=4, help_text="A JSON object that policies and functions may read.")

    class Meta:
        model = Key
        fields = ("consumer", "name", "scopes", "expires_at", "allowed_ips", "allowed_origins", "limits", "metadata")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            self.fields["scopes"].initial = every_scope()
            self.initial.pop("scopes", None)

    def create(self, fields: dict[str, Any]) -> Key:
        """Issue the key; the row holds its text until the request ends."""
        key, text = services.issue_key(**fields, by=self.by)
        key.text = text  # type: ignore[attr-defined]
        return key

    def update(self, row: Key, fields: dict[str, Any]) -> Key:
        """Update the key."""
        return services.update_key(row, **fields, by=self.by)


@admin.register(Key)
class Keys(ServiceAdmin):
    """API keys of consumers."""

    form: type[forms.ModelForm[Any]] = KeyForm
    list_display = (
        "shown_name",
        "id",
        "consumer",
        "shown_state",
        "shown_scopes",
        "last_used_at",
        "expires_at",
        "created_at",
    )
    list_filter = ("consumer", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("consumer",)
    search_fields = ("id", "name", "consumer__name")
    ordering = ("-created_at",)
    autocomplete_fields = ("consumer",)
    actions_detail = ("rotate", "revoke")
    fieldsets = (
        (None, {"fields": ("consumer", "name", "scopes", "expires_at")}),
        ("Where it may be used from", {"fields": ("allowed_ips", "allowed_origins")}),
        ("Limits and metadata", {"fields": ("limits", "metadata")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Key | None = None) -> tuple[str, ...]:
        """Return the consumer and the history of an existing key."""
        return ("consumer", *HISTORY) if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: Key | None = None) -> Any:
        """Return the fields, with the history of an existing key."""
        return (*self.fieldsets, ("History", {"fields": HISTORY})) if obj else self.fieldsets

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: keys are revoked here, not deleted."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Key | None = None) -> bool:
        """Return whether the operator may change keys, and the key is not revoked."""
        is_revoked = isinstance(obj, Key) and obj.revoked_at is not None
        return not is_revoked and bool(super().has_change_permission(request, obj))

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Issue a key, unless the operator exceeds the rate."""
        if request.method == "POST":
            try:
                attempts.charge(ISSUED.counter(request.user.get_username(), now_s=time.time()))
            except UsedUp:
                self.message_user(request, "Too many keys were issued. Try again in a minute.", messages.ERROR)
                return HttpResponseRedirect(reverse("admin:keys_key_changelist"))
        response: HttpResponse = super().add_view(request, form_url, extra_context)
        return response

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Show the new key once."""
        return self._show_once(request, obj, obj.text)

    @action(description="Rotate", url_path="rotate", icon="autorenew", permissions=["write"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the overlap, then rotate the key and show the new one once."""
        key = self._key(request, object_id)
        if request.method == "POST":
            chosen = {str(seconds): seconds for seconds, _, _ in OVERLAPS}.get(request.POST.get("overlap_s", ""))
            if chosen is not None:
                return self._try(
                    request,
                    key,
                    lambda by: self._show_once(
                        request, *services.rotate_key(key, overlap_s=chosen, by=by), rotated=key
                    ),
                )
            self.message_user(request, "Choose how long the old key stays valid.", messages.ERROR)
        return self._page(request, key, "rotate", f"Rotate {key}", overlaps=OVERLAPS)

    @action(description="Revoke", url_path="revoke", icon="block", variant=ActionVariant.DANGER, permissions=["write"])
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the reason, then revoke the key."""
        key = self._key(request, object_id)
        if request.method == "POST":
            return self._try(request, key, lambda by: self._revoke_and_redirect(request, key, by))
        return self._page(request, key, "revoke", f"Revoke {key}", reason_max=services.REASON_MAX_CHARS)

    def has_write_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the operator may rotate and revoke keys: whoever may change them."""
        return request.user.has_perm("keys.change_key")

    @display(description="Name", ordering="name")
    def shown_name(self, key: Key) -> str:
        """Return a name to click on."""
        return key.name or "unnamed"

    @display(description="State", label={"active": "success", "expired": "warning", "revoked": "danger"})
    def shown_state(self, key: Key) -> str:
        return state_of(key)

    @display(description="Scopes")
    def shown_scopes(self, key: Key) -> Any:
        return chips(key.scopes)

    def _key(self, request: HttpRequest, object_id: str) -> Key:
        key = Key.objects.with_consumer().filter(pk=object_id).first()
        if key is None:
            raise Http404
        if not self.has_write_permission(request):
            raise PermissionDenied
        return key

    def _revoke_and_redirect(self, request: HttpRequest, key: Key, by: str) -> HttpResponse:
        services.revoke_key(key, reason=request.POST.get("reason", ""), by=by)
        self.message_user(request, f"{key} is revoked; its connections close within a second.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:keys_key_change", args=[key.pk]))

    def _try(self, request: HttpRequest, key: Key, write: Callable[[str], HttpResponse]) -> HttpResponse:
        try:
            return write(request.user.get_username())
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:keys_key_change", args=[key.pk]))

    def _show_once(self, request: HttpRequest, key: Key, text: str, rotated: Key | None = None) -> HttpResponse:
        return self._page(request, key, "shown_once", "Copy the key now", text=text, rotated=rotated)

    def _page(self, request: HttpRequest, key: Key, page: str, title: str, **more: Any) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "original": key, "title": title, **more}
        response = TemplateResponse(request, f"admin/keys/key/{page}.html", context)
        response["Cache-Control"] = "no-store"
        return response


class IssuerForm(ServiceForm):
    """An issuer's form."""

    algorithms = forms.MultipleChoiceField(
        choices=[(name, name) for name in ALGORITHMS], initial=["RS256"], widget=UnfoldAdminCheckboxSelectMultipleWidget
    )

    class Meta:
        model = JwtIssuer
        fields = ("name", "issuer", "jwks_url", "audience", "algorithms", "consumer_claim")

    def create(self, fields: dict[str, Any]) -> JwtIssuer:
        """Create the issuer."""
        return issuers.create_issuer(**fields, by=self.by)

    def update(self, row: JwtIssuer, fields: dict[str, Any]) -> JwtIssuer:
        """Update the issuer."""
        return issuers.update_issuer(row, **fields, by=self.by)


@admin.register(JwtIssuer)
class Issuers(ServiceAdmin):
    """Trusted issuers of tokens."""

    form: type[forms.ModelForm[Any]] = IssuerForm
    list_display = ("name", "issuer", "audience", "shown_algorithms", "consumer_claim")
    search_fields = ("name", "issuer")
    fieldsets = ((None, {"fields": ("name", "issuer", "jwks_url", "audience", "algorithms", "consumer_claim")}),)
    ordering = ("name",)
    delete_row = staticmethod(issuers.delete_issuer)

    def get_readonly_fields(self, request: HttpRequest, obj: JwtIssuer | None = None) -> tuple[str, ...]:
        """Return the name for an existing row, which cannot be renamed."""
        return ("name",) if obj else ()

    @display(description="Algorithms")
    def shown_algorithms(self, issuer: JwtIssuer) -> Any:
        return chips(issuer.algorithms)


def state_of(key: Key) -> str:
    """Return ``active``, ``expired`` or ``revoked``."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "active"
