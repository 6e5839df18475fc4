"""Channel; Subscription, its durable readers; DeadLetter, an event that could not be accepted or delivered."""

from __future__ import annotations

from typing import Self

from django.db import models

from audit.configured import Configured, Represented
from consumers.models import Consumer, name_validator
from gateway.wire.subjects import Template, stream_of


class OnInvalid(models.TextChoices):
    """What becomes of an event that its schema refuses; its publisher is refused either way."""

    REJECT = "reject"
    DEAD_LETTER = "dead-letter"


class ChannelQuerySet(models.QuerySet["Channel"]):
    """Reads of channels."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self


class Channel(Configured):
    """A named, durable log of events at an address, which may have ``{parameters}``."""

    address = models.CharField(max_length=200, unique=True)
    title = models.CharField(max_length=200, blank=True)
    schema = models.JSONField(null=True, blank=True)
    on_invalid = models.CharField(max_length=12, choices=OnInvalid, default=OnInvalid.REJECT)
    retention = models.JSONField(default=dict, blank=True)
    protocols = models.JSONField(default=list, blank=True)

    identity = "address"
    represented = ("address", "title", "schema", "on_invalid", "retention", "protocols")
    published = (*represented, "stream", "subject")

    objects = ChannelQuerySet.as_manager()

    class Meta:
        ordering = ("address",)

    def __str__(self) -> str:
        return self.address

    @property
    def stream(self) -> str:
        """The name of the stream that stores its events."""
        return stream_of(self.address)

    @property
    def subject(self) -> str:
        """The subject filter of its events. Raises AddressError for an address that cannot be one."""
        return Template.parse(self.address).subject


class Schema(models.Model):
    """One schema of the registry, whichever subjects hold it: the same schema has the same id everywhere."""

    type = models.CharField(max_length=10)
    text = models.TextField()
    """As it was registered."""
    references = models.JSONField(default=list, blank=True)
    """What it refers to: ``name`` as it says it, ``subject``, ``version``."""
    extra = models.JSONField(default=dict, blank=True)
    """``metadata`` and ``ruleSet`` as they were given: for clients, which act by them."""
    digest = models.CharField(max_length=64, unique=True)
    """Of all of it: by this the same schema is known again."""

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"schema {self.pk}"


class SubjectQuerySet(models.QuerySet["Subject"]):
    """Reads of subjects."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self


class Subject(Configured):
    """A name in the registry under which versions of a schema follow each other."""

    name = models.CharField(max_length=255, unique=True)
    """``*`` for what holds where a subject says nothing of its own."""
    compatibility = models.CharField(max_length=20, blank=True)
    mode = models.CharField(max_length=10, blank=True)
    latest = models.JSONField(null=True, blank=True)
    """Its latest version, as the snapshot has it: ``version``, ``id``, ``type``, ``schema``, ``references`` (names
    with texts, each after what it refers to itself). None where none is left."""
    numbers = models.JSONField(default=dict, blank=True)
    """Of its versions, ``live`` and ``deleted``: as the audit log tells them."""

    published = represented = ("name", "compatibility", "mode", "latest")
    recorded_only = ("numbers",)

    objects = SubjectQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class SchemaVersion(models.Model):
    """A schema as a version of a subject. Deleted once, it is hidden; deleted for good, the row is gone."""

    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    schema = models.ForeignKey(Schema, on_delete=models.PROTECT, related_name="versions")
    is_deleted = models.BooleanField(default=False)

    class Meta:
        ordering = ("subject", "version")
        constraints = (models.UniqueConstraint(fields=("subject", "version"), name="version_of_a_subject_once"),)

    def __str__(self) -> str:
        return f"{self.subject} {self.version}"


class SubscriptionType(models.TextChoices):
    """How events reach the consumer."""

    WEBHOOK = "webhook"
    PULL = "pull"


class SubscriptionOrder(models.TextChoices):
    """Within what events keep their order."""

    CHANNEL = "channel"
    KEY = "key"


class SubscriptionState(models.TextChoices):
    """Whether it delivers."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    """Reads of subscriptions."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self.select_related("consumer")

    def of(self, consumer: str) -> Self:
        """Those of one consumer."""
        return self.documented().filter(consumer__name=consumer)


class Subscription(Configured):
    """A durable reader of a channel. How far it has come is kept by the event log."""

    id = models.CharField(max_length=40, primary_key=True)
    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="subscriptions")
    key = models.CharField(max_length=100, blank=True)
    """The key whose rights it delivers by; empty where an operator made it."""
    type = models.CharField(max_length=10, choices=SubscriptionType)
    channel = models.CharField(max_length=1024, db_index=True)
    url = models.CharField(max_length=2000, blank=True)
    order = models.CharField(max_length=10, choices=SubscriptionOrder)
    max_in_flight = models.PositiveIntegerField()
    max_attempts = models.PositiveIntegerField()
    retry_schedule_s = models.JSONField()
    ack_wait_s = models.FloatField()
    position = models.BigIntegerField()
    """The id after which it begins."""
    state = models.CharField(max_length=10, choices=SubscriptionState, default=SubscriptionState.ACTIVE)
    state_reason = models.CharField(max_length=40, blank=True)
    alert_url = models.CharField(max_length=2000, blank=True)
    alert_lag_events = models.BigIntegerField(null=True, blank=True)
    alert_lag_s = models.FloatField(null=True, blank=True)
    secret_generation = models.PositiveIntegerField(default=1)
    previous_secret_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    version = models.PositiveBigIntegerField(default=1)
    """Counts its changes, so that who made one knows when it has reached a gateway."""

    identity = "id"
    published = (
        "id", "consumer", "key", "type", "channel", "url", "order", "max_in_flight", "max_attempts",
        "retry_schedule_s", "ack_wait_s", "position", "state", "state_reason", "alert_url", "alert_lag_events",
        "alert_lag_s", "secret_generation", "previous_secret_until", "created_at", "version",
    )  # fmt: skip
    represented = (
        "id", "consumer", "key", "type", "channel", "url", "order", "max_in_flight", "max_attempts",
        "retry_schedule_s", "ack_wait_s", "state", "state_reason", "alert_url", "alert_lag_events", "alert_lag_s",
        "previous_secret_until", "created_at",
    )  # fmt: skip

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "id")

    def __str__(self) -> str:
        return self.id


class DeadLetterQuerySet(models.QuerySet["DeadLetter"]):
    """Reads of dead letters."""

    def on(self, channel: str) -> Self:
        """Those of one channel."""
        return self.filter(channel=channel)


class DeadLetter(Represented):
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
    subscription = models.CharField(max_length=40, blank=True, db_index=True)
    """Which subscription gave it up; empty where it was never accepted."""
    attempts = models.PositiveIntegerField(default=1)
    event = models.JSONField()
    dead_at = models.DateTimeField(db_index=True)

    identity = "id"
    represented = (
        "id", "channel", "address", "reason", "detail", "pointer", "consumer", "protocol", "subscription", "attempts",
        "event", "dead_at",
    )  # fmt: skip

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = (models.UniqueConstraint(fields=("made_at", "sequence"), name="dead_letter_once"),)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"


class DeadLetterPosition(models.Model):
    """How far the stream of dead letters is in the table; changed in the transaction of what was read."""

    made_at = models.CharField(max_length=40, primary_key=True)
    """When the stream was made."""
    sequence = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.made_at} {self.sequence}"


class ConnectorDirection(models.TextChoices):
    """Which way events go through a connector."""

    SOURCE = "source"
    SINK = "sink"


class ConnectorStart(models.TextChoices):
    """Where a sink begins, the first time."""

    EARLIEST = "earliest"
    LATEST = "latest"


class ConnectorQuerySet(models.QuerySet["Connector"]):
    """Reads of connectors."""

    def documented(self) -> Self:
        """Read all that a document needs."""
        return self


class Connector(Configured):
    """Another broker as a source or a sink of a channel. ``options`` are those of docs/connectors.md."""

    id = models.CharField(max_length=40, primary_key=True)
    """Names a sink's place in its channel: one that is made anew under the same name begins anew."""
    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    type = models.CharField(max_length=20)
    direction = models.CharField(max_length=10, choices=ConnectorDirection)
    channel = models.CharField(max_length=200, db_index=True)
    options = models.JSONField(default=dict, blank=True)
    address = models.CharField(max_length=1000, blank=True)
    start = models.CharField(max_length=10, choices=ConnectorStart, default=ConnectorStart.LATEST)
    is_active = models.BooleanField(default=True)

    represented = ("name", "type", "direction", "channel", "options", "address", "start", "is_active")
    published = (*represented, "id")

    objects = ConnectorQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
