"""Services that create, change and delete subscriptions."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from audit import recording
from consumers.models import Consumer
from events.models import Channel, Subscription, SubscriptionOrder, SubscriptionState, SubscriptionType
from events.outbound_urls import check_url
from gateway.durable.standing import secret
from gateway.snapshot.subscriptions import ID_PREFIX, RETRY_SCHEDULE_S, Why
from gateway.wire.subjects import AddressError, reading_filter

A_CONSUMER_MAX = 200
"""Maximum number of subscriptions of one consumer."""
IN_FLIGHT_MAX = 1000
PULL_IN_FLIGHT = 100
ATTEMPTS_MAX = 100
SCHEDULE_MAX = 100
PAUSE_MAX_S = 7 * 24 * 3600
ACK_WAIT_S, ACK_WAIT_MAX_S = 30.0, 12 * 3600.0
OVERLAP_S, OVERLAP_MAX_S = 24 * 3600, 30 * 24 * 3600
LAG_MAX = 10**15
_CHANGEABLE = (
    "url", "max_in_flight", "max_attempts", "retry_schedule_s", "ack_wait_s", "state",
    "alert_url", "alert_lag_events", "alert_lag_s",
)  # fmt: skip


def new_id() -> str:
    """Return a new id that cannot be guessed."""
    return ID_PREFIX + secrets.token_hex(12)


def channel_named(name: Any) -> Channel:
    """Return the channel that a subscription to this address reads. Raises ValidationError."""
    if not isinstance(name, str):
        raise ValidationError({"channel": "Must be a string."})
    try:
        found = channel_named_or_none(name)
    except AddressError as error:
        raise ValidationError({"channel": f"{error}."}) from None
    if found is None:
        raise ValidationError({"channel": "There is no such channel."})
    return found


def channel_named_or_none(name: str) -> Channel | None:
    """Return the channel that a subscription to this address reads, or None. Raises AddressError."""
    return Channel.objects.covering(reading_filter(name))


def create_subscription(
    *,
    consumer: Consumer,
    type: str,  # noqa: A002 - the field's name
    channel: str,
    position: int,
    key: str = "",
    id: str | None = None,  # noqa: A002 - the field's name
    order: str | None = None,
    by: str,
    **options: Any,
) -> tuple[Subscription, str | None]:
    """Create a subscription that starts after a position; return its row and its secret, which cannot be read again.

    If the consumer has a subscription with this id, it is returned instead. Raises ValidationError.
    """
    if (existing := _existing(consumer, id)) is not None:
        return existing, _secret_of(existing)
    channel_named(channel)
    is_webhook = _one_of("type", type, SubscriptionType) == SubscriptionType.WEBHOOK
    fields = _parse(options)
    fields.setdefault("max_in_flight", 1 if is_webhook else PULL_IN_FLIGHT)
    fields.setdefault("retry_schedule_s", list(RETRY_SCHEDULE_S))
    fields.setdefault("max_attempts", len(fields["retry_schedule_s"]))
    row = Subscription(
        id=id or new_id(),
        consumer=consumer,
        key=key,
        type=type,
        channel=channel,
        order=_order(order, fields["max_in_flight"], is_webhook=is_webhook),
        position=position,
        created_at=timezone.now(),
        **{"ack_wait_s": ACK_WAIT_S, **fields},
    )
    _check(row)
    with transaction.atomic():
        recording.lock(consumer, consumer.name)
        if (existing := _existing(consumer, id)) is not None:
            return existing, _secret_of(existing)
        if Subscription.objects.of(consumer.name).count() >= A_CONSUMER_MAX:
            raise ValidationError(f"A consumer has at most {A_CONSUMER_MAX} subscriptions; delete one.")
        recording.create("subscription", row, row.id, by=by)
    return row, _secret_of(row)


def _existing(consumer: Consumer, id_: str | None) -> Subscription | None:
    return Subscription.objects.of(consumer.name).filter(id=id_).first() if id_ else None


def update_subscription(row: Subscription, *, key: str | None = None, by: str, **changes: Any) -> Subscription:
    """Change a subscription; the rights of ``key`` apply to its deliveries from now on. Raises ValidationError."""
    for field in changes:
        if field not in _CHANGEABLE:
            raise ValidationError({field: f"Cannot be changed. Fields that can be changed: {', '.join(_CHANGEABLE)}."})
    parsed = _parse(changes)
    if "state" in parsed:
        parsed["state_reason"] = Why.REQUESTED.value if parsed["state"] == SubscriptionState.PAUSED else ""
    if key is not None:
        parsed["key"] = key
    with transaction.atomic():
        recording.lock(row, row.id)
        if row.state == SubscriptionState.ENDED and parsed.get("state") != SubscriptionState.ACTIVE:
            raise ValidationError("The subscription has ended. Set `state` to `active` to restart it, or delete it.")
        for field, value in parsed.items():
            setattr(row, field, value)
        _check(row)
        return _update(row, parsed, by=by)


def report_state(row: Subscription, *, state: str, reason: str, note: str = "", by: str) -> Subscription:
    """Record the state that the delivery process reports: its endpoint fails (``paused``), works again (``active``) or
    is gone (``ended``).

    A subscription that was paused or ended on request is not changed.
    """
    with transaction.atomic():
        recording.lock(row, row.id)
        is_requested = row.state != SubscriptionState.ACTIVE and row.state_reason != Why.FAILING
        if is_requested or (row.state, row.state_reason) == (state, reason):
            return row
        return _update(row, {"state": state, "state_reason": reason}, note=note, by=by)


def rotate_secret(row: Subscription, *, overlap_s: int = OVERLAP_S, by: str) -> tuple[Subscription, str]:
    """Create a new signing secret; until the overlap ends, messages are signed with the previous secret too.

    The secret before the previous one is no longer valid. Raises ValidationError.
    """
    if _secret_of(row) is None:
        raise ValidationError("There is no secret to rotate: the subscription has neither `url` nor `alert_url`.")
    if isinstance(overlap_s, bool) or not isinstance(overlap_s, int) or not 0 <= overlap_s <= OVERLAP_MAX_S:
        raise ValidationError({"overlap_s": f"Must be a whole number of seconds from 0 to {OVERLAP_MAX_S}."})
    with transaction.atomic():
        recording.lock(row, row.id)
        until = timezone.now() + timedelta(seconds=overlap_s) if overlap_s else None
        changes = {"secret_generation": row.secret_generation + 1, "previous_secret_until": until}
        row = _update(row, changes, note="secret rotated", by=by)
    return row, secret(settings.SECRET_KEY.encode(), row.id, row.secret_generation)


def delete_subscription(row: Subscription, *, by: str) -> None:
    """Delete a subscription and its position. Raises ValidationError if it no longer exists."""
    recording.delete("subscription", row, row.id, by=by)


def _update(row: Subscription, changes: dict[str, Any], *, note: str = "", by: str) -> Subscription:
    changes = {**changes, "version": row.version + 1}
    return recording.update("subscription", row, row.id, changes, note=note, by=by)


def _secret_of(row: Subscription) -> str | None:
    if row.type != SubscriptionType.WEBHOOK and not row.alert_url:
        return None
    return secret(settings.SECRET_KEY.encode(), row.id, row.secret_generation)


def _order(order: str | None, max_in_flight: int, *, is_webhook: bool) -> str:
    """Validate the order; the default is by key for webhooks with more than one request in flight."""
    if order is not None:
        return _one_of("order", order, SubscriptionOrder)
    return SubscriptionOrder.KEY if is_webhook and max_in_flight > 1 else SubscriptionOrder.CHANNEL


def _check(row: Subscription) -> None:
    """Raise ValidationError if the fields contradict each other."""
    is_webhook = row.type == SubscriptionType.WEBHOOK
    if is_webhook and not row.url:
        raise ValidationError({"url": "Required for a webhook."})
    if not is_webhook and row.url:
        raise ValidationError({"url": "Must be empty for a pull subscription."})
    if is_webhook and row.order == SubscriptionOrder.CHANNEL and row.max_in_flight > 1:
        raise ValidationError({"max_in_flight": "Must be 1 for a webhook in channel order."})
    if not is_webhook and row.order == SubscriptionOrder.KEY:
        raise ValidationError({"order": "Must be `channel` for a pull subscription."})
    if row.alert_url and row.alert_lag_events is None and row.alert_lag_s is None:
        raise ValidationError({"alert_url": "Requires `alert_lag_events` or `alert_lag_s`."})


def _parse(options: Mapping[str, Any]) -> dict[str, Any]:
    for field in options:
        if field not in _PARSERS:
            raise ValidationError({field: "Unknown field."})
    return {
        field: _PARSERS[field](value) for field, value in options.items() if value is not None or field in _NULLABLE
    }


def _one_of(field: str, value: Any, choices: Any) -> str:
    if value not in choices.values:
        raise ValidationError({field: f"Must be one of {', '.join(choices.values)}."})
    return str(value)


def _whole(field: str, most: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValidationError({field: f"Must be a whole number from 1 to {most}."})
        return value

    return read


def _seconds(field: str, least: float, most: float) -> Callable[[Any], float | None]:
    def read(value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValidationError({field: f"Must be a number of seconds from {least:g} to {most:g}."})
        return float(value)

    return read


def _schedule(value: Any) -> list[float]:
    pauses = value if isinstance(value, list | tuple) else []
    if not 1 <= len(pauses) <= SCHEDULE_MAX or any(
        isinstance(pause, bool) or not isinstance(pause, int | float) or not 0 <= pause <= PAUSE_MAX_S
        for pause in pauses
    ):
        raise ValidationError(
            {"retry_schedule_s": f"Must be a list of 1 to {SCHEDULE_MAX} delays, each from 0 to {PAUSE_MAX_S} s."}
        )
    return [float(pause) for pause in pauses]


def _requested_state(value: Any) -> str:
    if value not in (SubscriptionState.ACTIVE, SubscriptionState.PAUSED):
        raise ValidationError({"state": "Must be `active` or `paused`."})
    return str(value)


def _optional_url(field: str) -> Callable[[Any], str]:
    return lambda value: check_url(value, field) if value not in (None, "") else ""


_NULLABLE = ("url", "alert_url", "alert_lag_events", "alert_lag_s")
_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "url": _optional_url("url"),
    "max_in_flight": _whole("max_in_flight", IN_FLIGHT_MAX),
    "max_attempts": _whole("max_attempts", ATTEMPTS_MAX),
    "retry_schedule_s": _schedule,
    "ack_wait_s": _seconds("ack_wait_s", 1, ACK_WAIT_MAX_S),
    "state": _requested_state,
    "alert_url": _optional_url("alert_url"),
    "alert_lag_events": _whole("alert_lag_events", LAG_MAX),
    "alert_lag_s": _seconds("alert_lag_s", 1, PAUSE_MAX_S),
}
