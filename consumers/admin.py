"""Tiers and consumers in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from consumers import services
from consumers.limits import EXCEEDS, FAILS, MODES, SCOPES
from consumers.models import Consumer, Tier
from consumers.scopes import every_scope
from gateway.snapshot.documents import Metric
from operators.admin import ServiceAdmin, ServiceForm, chips, display
from operators.form_fields import Column, JsonField, LinesField, RowsField

LIMIT_COLUMNS = (
    Column("metric", "Metric", tuple(metric.value for metric in Metric)),
    Column("amount", "Amount", is_number=True, placeholder="100"),
    Column("per", "Per (s, or month)", is_number=True, placeholder="10"),
    Column("burst", "Burst", is_number=True, placeholder="= amount"),
    Column("scope", "Counted by", SCOPES),
    Column("exceed", "When exceeded", EXCEEDS),
    Column("mode", "Mode", MODES),
    Column("close_at", "Close at ×", is_number=True, placeholder="20"),
    Column("fail", "Store unavailable", FAILS),
)


def limits_field(label: str, help_text: str) -> RowsField:
    """Return a form field for a list of limits."""
    return RowsField(LIMIT_COLUMNS, noun="limit", label=label, help_text=help_text)


def limit_chips(limits: list[dict[str, Any]]) -> Any:
    """Render limits as chips such as ``requests 100/10s``."""
    return chips([f"{limit['metric']} {limit['amount']:,}{_per(limit['per'])}" for limit in limits])


def _per(per: Any) -> str:
    return "" if per is None else "/month" if per == "month" else f"/{per:g}s"


class TierForm(ServiceForm):
    """A tier's form."""

    limits = limits_field(
        "Limits",
        "Heartbeats never count. Defaults: burst is the amount, counted by consumer, reject. "
        "A tier without a limit of bytes_in gets one of 100 MiB in 10 s.",
    )
    scopes = LinesField(
        label="Scopes",
        placeholder="publish:sensors/*",
        required=False,
        help_text="Bound the scopes of its consumers' keys; one per line. Empty: no bound, every scope.",
    )

    class Meta:
        model = Tier
        fields = ("name", "description", "limits", "scopes")

    def clean_scopes(self) -> list[str]:
        """Return the scopes; an empty field leaves them out, which means every scope here as in the API and in YAML."""
        return self.cleaned_data["scopes"] or every_scope()

    def create(self, fields: dict[str, Any]) -> Tier:
        """Create the tier."""
        return services.create_tier(**fields, by=self.by)

    def update(self, row: Tier, fields: dict[str, Any]) -> Tier:
        """Update the tier."""
        return services.update_tier(row, **fields, by=self.by)


class ConsumerForm(ServiceForm):
    """A consumer's form."""

    limits = limits_field("Own limits", "Each replaces the tier's limit with the same metric and per.")
    metadata = JsonField(empty=dict, help_text="A JSON object that policies and functions may read.")

    class Meta:
        model = Consumer
        fields = ("name", "display_name", "email", "tier", "is_active", "limits", "metadata")

    def create(self, fields: dict[str, Any]) -> Consumer:
        """Create the consumer."""
        return services.create_consumer(**fields, by=self.by)

    def update(self, row: Consumer, fields: dict[str, Any]) -> Consumer:
        """Update the consumer."""
        return services.update_consumer(row, **fields, by=self.by)


@admin.register(Tier)
class Tiers(ServiceAdmin):
    """Named sets of limits and scopes."""

    form: type[forms.ModelForm[Any]] = TierForm
    list_display = ("name", "description", "shown_limits", "shown_consumers")
    fieldsets = ((None, {"fields": ("name", "description", "limits", "scopes")}),)
    search_fields = ("name", "description")
    delete_row = staticmethod(services.delete_tier)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tier]:
        """Return the tiers with their numbers of consumers."""
        return Tier.objects.with_counts().order_by("name")

    def get_readonly_fields(self, request: HttpRequest, obj: Tier | None = None) -> tuple[str, ...]:
        """Return the name for an existing row, which cannot be renamed."""
        return ("name",) if obj else ()

    @display(description="Limits")
    def shown_limits(self, tier: Tier) -> Any:
        """Return the limits as chips."""
        return limit_chips(tier.limits)

    @display(description="Consumers", ordering="consumer_count")
    def shown_consumers(self, tier: Any) -> Any:
        """Return a link to the consumers of the tier."""
        url = reverse("admin:consumers_consumer_changelist") + f"?tier__id__exact={tier.pk}"
        return format_html(
            '<a class="text-primary-600 dark:text-primary-400" href="{}">{}</a>', url, tier.consumer_count
        )


@admin.register(Consumer)
class Consumers(ServiceAdmin):
    """API consumers."""

    form: type[forms.ModelForm[Any]] = ConsumerForm
    list_display = ("name", "display_name", "tier", "shown_keys", "shown_state", "created_at")
    list_filter = ("tier", "is_active")
    fieldsets = (
        (None, {"fields": ("name", "display_name", "email", "tier", "is_active")}),
        ("Limits and metadata", {"fields": ("limits", "metadata")}),
    )
    list_select_related = ("tier",)
    search_fields = ("name", "display_name", "email")
    delete_row = staticmethod(services.delete_consumer)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Consumer]:
        """Return the consumers with their numbers of keys that are not revoked."""
        return (
            Consumer.objects.with_tier()
            .annotate(key_count=Count("keys", filter=Q(keys__revoked_at=None)))
            .order_by("name")
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Consumer | None = None) -> tuple[str, ...]:
        """Return the name for an existing row, which cannot be renamed."""
        return ("name",) if obj else ()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what is deleted along: its keys too, although keys alone cannot be deleted here."""
        deleted, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return deleted, counts, {name for name in lacking if name != "key"}, protected

    @display(description="Keys", ordering="key_count")
    def shown_keys(self, consumer: Any) -> Any:
        """Return a link to its keys."""
        url = reverse("admin:keys_key_changelist") + f"?consumer__id__exact={consumer.pk}"
        return format_html(
            '<a class="text-primary-600 dark:text-primary-400" href="{}">{}</a>', url, consumer.key_count
        )

    @display(description="State", label={"active": "success", "disabled": "danger"})
    def shown_state(self, consumer: Consumer) -> str:
        return "active" if consumer.is_active else "disabled"
