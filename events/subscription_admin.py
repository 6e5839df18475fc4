"""Subscriptions in the admin: their status and attempts; they can be paused and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from audit import bus
from events import subscription_status, subscriptions
from events.models import Subscription, SubscriptionState
from operators.admin import ReadOnlyAdmin, action, display

ATTEMPTS_SHOWN = 20
REFUSED_SHOWN = 5


@admin.register(Subscription)
class Subscriptions(ReadOnlyAdmin):
    """Durable subscriptions to channels, created by consumers or over the management API."""

    list_display = ("id", "consumer", "channel", "type", "shown_state", "shown_lag", "url")
    list_filter = ("type", "state", "consumer")
    search_fields = ("id", "channel", "url", "consumer__name")
    list_select_related = ("consumer",)
    ordering = ("-created_at", "id")
    actions = ("pause_selected", "resume_selected")
    delete_row = staticmethod(subscriptions.delete_subscription)
    readonly_fields = ("shown_state", "shown_lag", "shown_fault", "shown_attempts")
    fieldsets = (
        (None, {"fields": ("consumer", "key", "channel", "type", "url", "created_at")}),
        ("State", {"fields": ("shown_state", "shown_lag", "shown_fault")}),
        ("Delivery", {"fields": ("order", "max_in_flight", "max_attempts", "retry_schedule_s", "ack_wait_s")}),
        ("Alert", {"fields": ("alert_url", "alert_lag_events", "alert_lag_s")}),
        ("Attempts", {"fields": ("shown_attempts",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        """Query the health of all subscriptions at once, for the page."""
        # Shared by concurrent requests: each sees the health that was queried last.
        self._healths = subscription_status.healths()
        return super().get_queryset(request)  # type: ignore[no-any-return]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete subscriptions."""
        return request.user.has_perm("events.delete_subscription")

    def has_pause_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may pause and resume subscriptions."""
        return request.user.has_perm("events.change_subscription")

    @display(description="State", label=True)
    def shown_state(self, row: Subscription) -> str:
        """Return its state and the reason for it."""
        standing = self._standing(row)
        return (
            f"{standing['state']}: {standing['state_reason']}" if standing["state_reason"] else str(standing["state"])
        )

    @display(description="Lag")
    def shown_lag(self, row: Subscription) -> str:
        """Return its lag."""
        lag = self._standing(row)["lag"]
        return "unknown" if lag["events"] is None else f"{lag['events']:,} events, {lag['seconds']:,.0f} s"

    @display(description="Last fault")
    def shown_fault(self, row: Subscription) -> str:
        """Return the error of the last failed attempt."""
        fault = self._standing(row).get("last_error")
        return f"{fault['at']}: {fault['detail']}" if fault else "none"

    @display(description="Latest")
    def shown_attempts(self, row: Subscription) -> Any:
        """Return the latest attempts as HTML."""
        try:
            found = subscription_status.attempts(row.id)[:ATTEMPTS_SHOWN]
        except bus.Unavailable:
            return "NATS is unavailable."
        return format_html_join(
            "",
            "<details><summary>{} event {}, attempt {}: {} ({} s)</summary>{}</details>",
            (
                (one["at"], one["event"], one["attempt"], one["outcome"], one["duration_s"], _as_text(one))
                for one in found
            ),
        )

    @action(description="Pause", permissions=["pause"], icon="pause")
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> Any:
        """Pause delivery, after confirmation; positions are kept."""
        return self._each(request, queryset, SubscriptionState.PAUSED, "paused")

    @action(description="Resume", permissions=["pause"], icon="play_arrow")
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> Any:
        """Resume delivery, after confirmation."""
        return self._each(request, queryset, SubscriptionState.ACTIVE, "resumed")

    def _each(self, request: HttpRequest, rows: QuerySet[Subscription], state: SubscriptionState, verb: str) -> Any:
        ids = self.confirmed(request)
        if ids is None:
            return self.ask(
                request,
                rows.values_list("pk", flat=True),
                title=f"{len(rows)} {'subscription' if len(rows) == 1 else 'subscriptions'} will be {verb}. Continue?",
                text="Positions are kept: what is published meanwhile is delivered after delivery has resumed.",
                lines=[(f"{row.consumer.name}, {row.channel}", row.id) for row in rows],
            )
        rows = self.get_queryset(request).filter(pk__in=ids)
        change: Callable[..., Any] = subscriptions.update_subscription
        done, refused = 0, []
        for row in rows:
            try:
                change(row, state=state.value, by=request.user.get_username())
            except ValidationError as error:
                refused.append(f"{row.id}: {' '.join(error.messages)}")
            else:
                done += 1
        if done:
            self.message_user(request, f"{done} {'subscription' if done == 1 else 'subscriptions'} {verb}.")
        for text in refused[:REFUSED_SHOWN]:
            self.message_user(request, text, messages.ERROR)
        return None

    def _standing(self, row: Subscription) -> dict[str, Any]:
        return subscription_status.shown(row, self._healths.get(row.id, {}))


def _as_text(attempt: dict[str, Any]) -> Any:
    return format_html('<pre class="plain-json">{}</pre>', json.dumps(attempt, indent=2, ensure_ascii=False))
