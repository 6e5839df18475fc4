"""Tables that usage is projected into: roll-ups, the connection ledger, and the projector's position."""

from __future__ import annotations

from typing import Any, Self

from django.db import models


class UsageMinute(models.Model):
    """Usage of one combination of labels in one minute; of old usage, in one hour or one day in UTC."""

    minute = models.DateTimeField()
    """The begin of the minute, hour or day."""
    span_s = models.PositiveIntegerField(default=60)
    protocol = models.CharField(max_length=10)
    consumer = models.CharField(max_length=100, blank=True)
    key = models.CharField(max_length=40, blank=True)
    tier = models.CharField(max_length=100, blank=True)
    target = models.CharField(max_length=255, blank=True)
    outcome = models.CharField(max_length=40)
    error_class = models.CharField(max_length=20, blank=True)
    calls = models.BigIntegerField(default=0)
    messages_in = models.BigIntegerField(default=0)
    messages_out = models.BigIntegerField(default=0)
    bytes_in = models.BigIntegerField(default=0)
    bytes_out = models.BigIntegerField(default=0)
    throttled = models.BigIntegerField(default=0)
    latency_ms_sum = models.FloatField(default=0)
    latency_ms_max = models.FloatField(default=0)

    class Meta:
        ordering = ("-minute",)
        constraints = (
            models.UniqueConstraint(
                fields=("minute", "protocol", "consumer", "key", "tier", "target", "outcome", "error_class"),
                name="usage_minute_label",
            ),
        )
        indexes = (
            models.Index(fields=("consumer", "minute")),
            models.Index(fields=("span_s", "minute"), name="usage_minute_span"),
        )

    def __str__(self) -> str:
        return f"{self.minute:%H:%M} {self.protocol} {self.consumer} {self.target}: {self.calls}"


class LimitMinute(models.Model):
    """Refusals of one limit, or one policy in shadow mode, for one consumer in one minute, and the limit's level.

    Of old rows, in one hour in UTC, or one day.
    """

    minute = models.DateTimeField()
    """The begin of the minute, hour or day."""
    span_s = models.PositiveIntegerField(default=60)
    consumer = models.CharField(max_length=100, blank=True)
    name = models.CharField(max_length=100)
    scope = models.CharField(max_length=12)
    mode = models.CharField(max_length=10)
    route = models.CharField(max_length=255, blank=True)
    reason = models.CharField(max_length=40, blank=True)
    refused = models.BigIntegerField(default=0)
    shadowed = models.BigIntegerField(default=0)
    unshared = models.FloatField(default=0)
    level = models.FloatField(null=True)
    """The highest share used, between 0 and 1; None if it stayed below a half."""
    left = models.BigIntegerField(null=True)
    resets_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-minute",)
        constraints = (
            models.UniqueConstraint(
                fields=("minute", "consumer", "name", "scope", "mode", "route", "reason"), name="limit_minute_label"
            ),
        )
        indexes = (models.Index(fields=("span_s", "minute"), name="limit_minute_span"),)

    def __str__(self) -> str:
        return f"{self.minute:%H:%M} {self.consumer} {self.name}: {self.refused}"


class ConnectionQuerySet(models.QuerySet["ConnectionRecord"]):
    """Queries of the ledger."""

    def still_open(self) -> Self:
        """Return the connections that are open."""
        return self.filter(closed_at=None)


class ConnectionRecord(models.Model):
    """A connection; the row is kept after it has closed."""

    id = models.CharField(max_length=32, primary_key=True)
    process = models.CharField(max_length=60, db_index=True)
    consumer = models.CharField(max_length=100, db_index=True)
    key = models.CharField(max_length=40)
    tier = models.CharField(max_length=100)
    protocol = models.CharField(max_length=10)
    route = models.CharField(max_length=100, blank=True)
    channel = models.CharField(max_length=255, blank=True)
    ip = models.CharField(max_length=45)
    opened_at = models.DateTimeField(db_index=True)
    closed_at = models.DateTimeField(null=True, db_index=True)
    closed_by = models.CharField(max_length=10, blank=True)
    close_code = models.IntegerField(null=True)
    error_class = models.CharField(max_length=20, blank=True)
    messages_in = models.BigIntegerField(default=0)
    messages_out = models.BigIntegerField(default=0)
    bytes_in = models.BigIntegerField(default=0)
    bytes_out = models.BigIntegerField(default=0)
    throttled = models.BigIntegerField(default=0)
    subscriptions = models.JSONField(default=list)
    """The last reported position of each filter: ``channel``, ``last_id``, ``lag`` in ``events`` and ``seconds``."""

    objects = ConnectionQuerySet.as_manager()

    class Meta:
        ordering = ("-opened_at",)

    def __str__(self) -> str:
        return f"{self.protocol} {self.consumer} {self.id}"

    @property
    def furthest_behind(self) -> dict[str, Any] | None:
        """The filter with the greatest lag; None if there is none."""
        return self.subscriptions[0] if self.subscriptions else None


class GatewayProcess(models.Model):
    """A run of a data-plane process, as long as it sends usage."""

    name = models.CharField(max_length=60, primary_key=True)
    kind = models.CharField(max_length=10)
    heard_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.name


class ProjectorPosition(models.Model):
    """How far the usage stream has been projected; changed in the transaction that writes the projected rows."""

    stream = models.CharField(max_length=60, primary_key=True)
    made_at = models.CharField(max_length=40, blank=True)
    """When the stream was created: another instant means another stream, to be read from its start."""
    sequence = models.BigIntegerField(default=0)
    kept_before = models.DateTimeField(null=True)
    """The last rebuild kept the rows of earlier minutes, as the stream no longer has all of them."""
    kept_up_to = models.BigIntegerField(default=0)
    """The sequence up to which those rows contain the stream: of these batches, they are not projected again."""

    def __str__(self) -> str:
        return f"{self.stream} {self.sequence}"
