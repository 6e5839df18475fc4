"""Channel, and DeadLetter: an event that could not be accepted or delivered."""

from __future__ import annotations

from typing import Any

from django.db import models

from gateway.subjects import Template, stream_of


class OnInvalid(models.TextChoices):
    """What becomes of an event that its schema refuses; its publisher is refused either way."""

    REJECT = "reject"
    DEAD_LETTER = "dead-letter"


class Channel(models.Model):
    """A named, durable log of events at an address, which may have ``{parameters}``."""

    address = models.CharField(max_length=200, unique=True)
    title = models.CharField(max_length=200, blank=True)
    schema = models.JSONField(null=True, blank=True)
    on_invalid = models.CharField(max_length=12, choices=OnInvalid, default=OnInvalid.REJECT)
    retention = models.JSONField(default=dict, blank=True)
    protocols = models.JSONField(default=list, blank=True)

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
        return {
            "address": self.address,
            "stream": stream_of(self.address),
            "subject": self.subject,
            "title": self.title,
            "schema": self.schema,
            "on_invalid": self.on_invalid,
            "retention": self.retention,
            "protocols": self.protocols,
        }


class DeadLetter(models.Model):
    """An event that could not be accepted, with its fault."""

    sequence = models.BigIntegerField(unique=True)
    channel = models.CharField(max_length=200, db_index=True)
    address = models.CharField(max_length=255)
    reason = models.CharField(max_length=40, db_index=True)
    detail = models.CharField(max_length=1000, blank=True)
    pointer = models.CharField(max_length=500, blank=True)
    consumer = models.CharField(max_length=100, blank=True)
    protocol = models.CharField(max_length=10, blank=True)
    attempts = models.PositiveIntegerField(default=1)
    event = models.JSONField()
    dead_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"

    def document(self) -> dict[str, Any]:
        """Say what it is, for the audit log."""
        return {"channel": self.channel, "address": self.address, "reason": self.reason, "event": self.event}
