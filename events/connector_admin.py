"""Connectors in the admin, with their health."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timesince import timesince
from unfold.widgets import UnfoldAdminSelectWidget

from events import connectors
from events.models import Connector
from gateway.connectors.kinds import KINDS
from operators.admin import ServiceAdmin, ServiceForm, display
from operators.form_fields import JsonField


class ConnectorForm(ServiceForm):
    """The form of a connector."""

    type = forms.ChoiceField(choices=[(name, name) for name in KINDS], widget=UnfoldAdminSelectWidget)
    options = JsonField(
        empty=dict,
        rows=10,
        help_text="See docs/connectors.md. Refer to secrets by environment variable: ${CONNECTOR_PASSWORD}.",
    )

    class Meta:
        model = Connector
        fields = ("name", "type", "direction", "channel", "address", "start", "options", "is_active")

    def create(self, fields: dict[str, Any]) -> Connector:
        """Create the connector."""
        return connectors.create_connector(**fields, by=self.by)

    def update(self, row: Connector, fields: dict[str, Any]) -> Connector:
        """Change the connector."""
        return connectors.update_connector(row, **fields, by=self.by)


@admin.register(Connector)
class Connectors(ServiceAdmin):
    """Other brokers as sources and sinks of channels."""

    form: type[forms.ModelForm[Any]] = ConnectorForm
    list_display = ("name", "type", "direction", "channel", "is_active", "shown_state", "shown_passed", "shown_error")
    list_filter = ("type", "direction", "is_active")
    search_fields = ("name", "channel")
    ordering = ("name",)
    delete_row = staticmethod(connectors.delete_connector)
    fieldsets = (
        (None, {"fields": ("name", "type", "direction", "is_active")}),
        ("Channel", {"fields": ("channel", "address", "start")}),
        ("Broker", {"fields": ("options",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Connector]:
        """Query the health of all connectors at once, for the page."""
        # Shared by concurrent requests: each sees the health that was queried last.
        self._healths = connectors.healths()
        return super().get_queryset(request)  # type: ignore[no-any-return]

    def get_readonly_fields(self, request: HttpRequest, obj: Connector | None = None) -> tuple[str, ...]:
        """Return the fields that cannot be changed."""
        return ("name", "type", "direction", "channel") if obj else ()

    @display(description="State", label={"running": "success", "failing": "danger", "starting": "info"})
    def shown_state(self, row: Connector) -> str:
        """Return its state."""
        return str(self._health(row)["state"])

    @display(description="Passed on")
    def shown_passed(self, row: Connector) -> str:
        """Return how much it has passed on since its process started, and when it last did."""
        health = self._health(row)
        if health["passed"] is None:
            return "unknown"
        buried = f", {health['buried']:,} to the dead letters" if health["buried"] else ""
        if health["last_at"] is None:
            return f"{health['passed']:,}{buried}"
        return f"{health['passed']:,}{buried}, the last {timesince(datetime.fromtimestamp(health['last_at'], UTC))} ago"

    @display(description="Error")
    def shown_error(self, row: Connector) -> str:
        """Return its last error."""
        return str(self._health(row)["error"]) or "none"

    def _health(self, row: Connector) -> dict[str, Any]:
        return self._healths.get(row.id, connectors.STOPPED)
