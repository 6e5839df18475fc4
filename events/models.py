"""Channel, and DeadLetter: an event that could not be accepted or delivered."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Self

from django.db import models

from gateway.subjects import Template, stream_of


class OnInvalid(models.TextChoices):
    """What becomes of an event that its schema refuses; its publisher is refused either way."""

    REJECT = "reject"
    DEAD_LETTER = "dead-letter"


class ChannelQuerySet(models.QuerySet["Channel"]):
    """Reads of channels."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self


class Channel(models.Model):
    """A named, durable log of events at an address, which may have ``{parameters}``."""

    address = models.CharField(max_length=200, unique=True)
    title = models.CharField(max_length=200, blank=True)
    schema = models.JSONField(null=True, blank=True)
    on_invalid = models.CharField(max_length=12, choices=OnInvalid, default=OnInvalid.REJECT)
    retention = models.JSONField(default=dict, blank=True)
    protocols = models.JSONField(default=list, blank=True)

    objects = ChannelQuerySet.as_manager()

    class Meta:
        ordering = ("address",)

    def __str__(self) -> str:
        return self.address

    @property
    def subject(self) -> str:
        """The subject filter of its events. Raises AddressError for an address that cannot be one."""
        return Template.parse(self.address).subject

    def document(self) -> dict[str, Any]:
        """Say how it stands, for the snapshot."""
        return self.representation() | {"stream": stream_of(self.address), "subject": self.subject}

    def recorded(self) -> dict[str, Any]:
        """Say all of it, for the audit log."""
        return self.document()

    def representation(self) -> dict[str, Any]:
        """Say it as the management API and YAML do."""
        return {
            "address": self.address,
            "title": self.title,
            "schema": self.schema,
            "on_invalid": str(self.on_invalid),
            "retention": self.retention,
            "protocols": self.protocols,
        }


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Reads of dead letters."""

    def on(self, channel: str) -> Self:
        """Those of one channel."""
        return self.filter(channel=channel)


class DeadLetter(models.Model):
    """An event that could not be accepted, with its fault."""

    made_at = models.CharField(max_length=40, blank=True)
    """When the stream that it came on was made: sequences of another stream say nothing about this one's."""
    sequence = models.BigIntegerField()
    channel = models.CharField(max_length=200, db_index=True)
    address = models.CharField(max_length=1024)
    reason = models.CharField(max_length=40, db_index=True)
    detail = models.CharField(max_length=1000, blank=True)
    pointer = models.CharField(max_length=500, blank=True)
    consumer = models.CharField(max_length=100, blank=True, db_index=True)
    protocol = models.CharField(max_length=10, blank=True)
    attempts = models.PositiveIntegerField(default=1)
    event = models.JSONField()
    dead_at = models.DateTimeField(db_index=True)

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = (models.UniqueConstraint(fields=("made_at", "sequence"), name="dead_letter_once"),)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"

    def recorded(self) -> dict[str, Any]:
        """Say all of it, for the audit log."""
        return self.representation()

    def representation(self) -> dict[str, Any]:
        """Say it as the management API does."""
        return {
            "id": self.pk,
            "channel": self.channel,
            "address": self.address,
            "reason": self.reason,
            "detail": self.detail,
            "pointer": self.pointer,
            "consumer": self.consumer,
            "protocol": self.protocol,
            "attempts": self.attempts,
            "event": self.event,
            "dead_at": self.dead_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        }


class DeadLetterPosition(models.Model):
    """How far the stream of dead letters is in the table; changed in the transaction of what was read."""

    made_at = models.CharField(max_length=40, primary_key=True)
    """When the stream was made."""
    sequence = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.made_at} {self.sequence}"
