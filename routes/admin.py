"""Routes in the admin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from consumers.limits import MODES
from gateway.policies import KNOWN
from gateway.wire.header_fields import OVERRIDES
from operators.admin import ServiceAdmin, ServiceForm, chips, display
from operators.form_fields import Column, LinesField, RowsField
from routes import services
from routes.forwarding import TIMEOUTS
from routes.models import Route
from routes.validation import HANDLER_FIELDS, METHODS

POLICY_COLUMNS = (
    Column("type", "Policy", tuple(sorted(KNOWN))),
    Column("options", "Options (JSON)", is_json=True, placeholder='{"max_bytes": 65536}'),
    Column("mode", "Mode", MODES),
)
_HANDLER = {
    f"handler_{name}": name for name in ("type", "url", "rewrite", "override_headers", "channel", "job_type", "name")
}
_TIMEOUTS = {f"timeouts_{name}": name for name in TIMEOUTS}
_CREDENTIAL = ("upstream_credential_header", "upstream_credential_value", "removes_upstream_credential")
_READ_ONLY = ("imported_from", "upstream_credential_id")
_FORWARDING = (
    "preserve_host", "rewrite_location", "encoded_slashes", "upstream_authorization", "idempotency", "compression",
)  # fmt: skip


def _text(label: str, help_text: str) -> forms.CharField:
    return forms.CharField(required=False, label=label, help_text=help_text, widget=UnfoldAdminTextInputWidget)


def _seconds(label: str, help_text: str) -> forms.FloatField:
    return forms.FloatField(required=False, label=label, help_text=help_text, widget=UnfoldAdminTextInputWidget)


class RouteForm(ServiceForm):
    """A route's form."""

    methods = LinesField(
        rows=3,
        placeholder="GET",
        help_text=f"One per line; * for any. Empty for {', '.join(METHODS)} of HTTP, and for GET of other protocols.",
    )
    handler_type = forms.ChoiceField(
        choices=[(kind, kind) for kind in HANDLER_FIELDS], label="Handled by", widget=UnfoldAdminSelectWidget
    )
    handler_url = _text("Upstream URL", "May contain parameters of the path: https://service.internal/items/{rest}.")
    handler_rewrite = _text("Rewrite", "The path that is requested from the upstream instead.")
    handler_override_headers = forms.MultipleChoiceField(
        choices=[(name, name) for name in sorted(OVERRIDES)],
        required=False,
        label="Override headers",
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="Passed on to the upstream, which may then serve another method, path or host. Others are dropped.",
    )
    handler_channel = _text("Channel", "The address of the channel that the route publishes to and reads.")
    handler_job_type = _text("Job type", "The type of the jobs that the route submits.")
    handler_name = _text("Placeholder", "What a handler of type placeholder stands for: calls are refused.")
    timeouts_connect_s = _seconds("Connect timeout", "Seconds to connect to the upstream. Empty: the setting.")
    timeouts_first_byte_s = _seconds("First byte timeout", "Seconds until the head of its response.")
    timeouts_idle_s = _seconds("Idle timeout", "Seconds between two parts of its response.")
    upstream_credential_header = _text("Upstream credential: header", "The header that it is sent in: Authorization.")
    upstream_credential_value = forms.CharField(
        required=False,
        label="Upstream credential: value",
        help_text="Sent to the upstream with each call. It is encrypted and never shown; empty: unchanged.",
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )
    removes_upstream_credential = forms.BooleanField(
        required=False, label="Remove the upstream credential", widget=UnfoldBooleanSwitchWidget
    )
    policies = RowsField(POLICY_COLUMNS, noun="policy", help_text="Applied in this order.")

    class Meta:
        model = Route
        fields = ("name", "path", "protocol", "methods", "reserved_override", "policies", *_FORWARDING)
        help_texts: ClassVar[dict[str, str]] = {
            "path": "A segment may have parameters: /items/{id}; the last may be a rest: /files/{path...}.",
            "reserved_override": "Allow a path below a prefix of the gateway's own, such as /v1.",
            "preserve_host": "Send the caller's Host to the upstream instead of the upstream's own.",
            "rewrite_location": "Replace the upstream's names in Location and other response headers by the gateway's.",
            "encoded_slashes": "%2F in a segment. Empty: keep it if the path ends in a rest, otherwise refuse it.",
            "upstream_authorization": "Keep: pass an Authorization header beside the caller's API key to the upstream.",
            "compression": "Accept permessage-deflate from callers of a WebSocket.",
            "idempotency": "Send a POST with an Idempotency-Key to the upstream once.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for names, values in ((_HANDLER, self.instance.handler or {}), (_TIMEOUTS, self.instance.timeouts)):
            for field, name in names.items():
                if field in self.fields:
                    self.fields[field].initial = values.get(name)

    def fields_for_service(self) -> dict[str, Any]:
        """Return the fields of the service, with its objects assembled from their own fields."""
        own = (*_HANDLER, *_TIMEOUTS, *_CREDENTIAL)
        fields = {name: value for name, value in super().fields_for_service().items() if name not in own}
        for name, names in (("handler", _HANDLER), ("timeouts", _TIMEOUTS)):
            assembled = self._assembled(names)
            if self.instance._state.adding or assembled != getattr(self.instance, name):
                fields[name] = assembled
        return fields | self._credential()

    def _assembled(self, names: Mapping[str, str]) -> dict[str, Any]:
        values = {name: self.cleaned_data.get(field) for field, name in names.items()}
        return {name: value for name, value in values.items() if value not in (None, "", [])}

    def _credential(self) -> dict[str, Any]:
        """Return the credential if it is set or removed; nothing if it stays as it is."""
        header, value, is_removed = (self.cleaned_data.get(field) for field in _CREDENTIAL)
        if value or header:
            return {services.CREDENTIAL: {"header": header, "value": value}}
        return {services.CREDENTIAL: None} if is_removed else {}

    def create(self, fields: dict[str, Any]) -> Route:
        """Create the route."""
        return services.create_route(**fields, by=self.by)

    def update(self, row: Route, fields: dict[str, Any]) -> Route:
        """Update the route."""
        return services.update_route(row, **fields, by=self.by)


@admin.register(Route)
class Routes(ServiceAdmin):
    """Routes."""

    form: type[forms.ModelForm[Any]] = RouteForm
    list_display = ("name", "shown_protocol", "path", "shown_methods", "shown_handler", "shown_policies")
    list_filter = ("protocol",)
    search_fields = ("name", "path")
    ordering = ("name",)
    delete_row = staticmethod(services.delete_route)
    fieldsets = (
        (None, {"fields": ("name", "path", "protocol", "methods", "reserved_override", "imported_from")}),
        ("Handler", {"fields": tuple(_HANDLER)}),
        ("Upstream", {"fields": (*_FORWARDING, *_TIMEOUTS, *_CREDENTIAL, "upstream_credential_id")}),
        ("Policies", {"fields": ("policies",)}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Route | None = None) -> tuple[str, ...]:
        """Return the name for an existing row, which cannot be renamed, its document, and its credential's id."""
        return ("name", *_READ_ONLY) if obj else _READ_ONLY

    @display(
        description="Protocol", ordering="protocol", label={"HTTP": "info", "SSE": "success", "WebSocket": "warning"}
    )
    def shown_protocol(self, route: Any) -> str:
        return str(route.get_protocol_display())

    @display(description="Methods")
    def shown_methods(self, route: Route) -> Any:
        return chips(["all"] if set(route.methods) == set(METHODS) else route.methods)

    @display(description="Handled by")
    def shown_handler(self, route: Route) -> str:
        """Return the handler's type and target."""
        handler = route.handler
        target = handler.get("url") or handler.get("channel") or handler.get("job_type") or handler.get("name")
        return f"{handler['type']} → {target}" if target else handler["type"]

    @display(description="Policies")
    def shown_policies(self, route: Route) -> Any:
        """Return the policies as chips, in order."""
        return chips(
            [policy["type"] + (" (shadow)" if policy["mode"] == "shadow" else "") for policy in route.policies]
        )
