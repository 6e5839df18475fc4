"""Channels, their durable subscriptions, dead letters, the schema registry, and connectors."""

from __future__ import annotations

from functools import lru_cache
from typing import Self

from django.db import models

from audit.configured import Configured, Represented
from audit.ordered_json import OrderedJSONField
from consumers.models import Consumer, name_validator
from events import letter_job_models  # noqa: F401 - a model of this app
from gateway.wire.content_types import JSON
from gateway.wire.subjects import Template, stream_of


class OnInvalid(models.TextChoices):
    """What happens to an event that its schema rejects; the publisher is refused in both cases."""

    REJECT = "reject"
    DEAD_LETTER = "dead-letter"


class ChannelQuerySet(models.QuerySet["Channel"]):
    """Queries of channels."""

    def documented(self) -> Self:
        """Select everything that a document needs."""
        return self

    def covering(self, subject_filter: str) -> Channel | None:
        """Return the most specific channel that matches every address which a subject filter matches."""
        templates = map(template_of, self.values_list("address", flat=True))
        ranked = [(template.rank, template.address) for template in templates if template.covers(subject_filter)]
        return self.get(address=min(ranked)[1]) if ranked else None


class Channel(Configured):
    """A named, durable log of events at an address, which may have ``{parameters}`` and a ``{rest...}``."""

    address = models.CharField(max_length=200, unique=True)
    title = models.CharField(max_length=200, blank=True)
    schema = OrderedJSONField(null=True, blank=True)
    on_invalid = models.CharField(max_length=12, choices=OnInvalid, default=OnInvalid.REJECT)
    retention = OrderedJSONField(default=dict, blank=True)
    protocols = OrderedJSONField(default=list, blank=True)
    content_type = models.CharField(max_length=200, default=JSON)
    """What its events are: ``json``, ``text``, ``bytes`` or a media type."""
    parameters = OrderedJSONField(default=dict, blank=True)
    """The parameters of the address that are restricted to some values: ``{"deviceId": {"enum": […]}}``."""
    imported_from = models.CharField(max_length=300, blank=True)
    """The document that an import made it from; empty if no import did."""
    subject_prefix = models.CharField(max_length=60, blank=True, default="", editable=False)
    """What the subjects of its events begin with in its stream; empty if an earlier version created the channel."""

    identity = "address"
    _shown = ("address", "title", "content_type", "schema", "on_invalid", "retention", "protocols", "parameters")
    represented = (*_shown, "imported_from")
    published = (*_shown, "stream", "subject", "subject_prefix")
    recorded_only = ("imported_from",)

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
        """The NATS subject filter of its events. Raises AddressError for an invalid address."""
        return template_of(self.address).subject


@lru_cache(maxsize=16_384)
def template_of(address: str) -> Template:
    """Parse a channel's address. Raises AddressError."""
    return Template.parse(address)


class Schema(models.Model):
    """A schema of the registry. The same schema has the same id in all subjects."""

    type = models.CharField(max_length=10)
    text = models.TextField()
    """The text as it was registered."""
    references = OrderedJSONField(default=list, blank=True)
    """The schemas it references: ``name`` (as in the text), ``subject``, ``version``."""
    extra = OrderedJSONField(default=dict, blank=True)
    """``metadata`` and ``ruleSet`` as submitted; only clients interpret them."""
    digest = models.CharField(max_length=64, unique=True)
    """Digest of all fields above, by which the same schema is recognized."""

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"schema {self.pk}"


class SubjectQuerySet(models.QuerySet["Subject"]):
    """Queries of subjects."""

    def documented(self) -> Self:
        """Select everything that a document needs."""
        return self


class Subject(Configured):
    """A name in the registry under which versions of a schema are registered."""

    name = models.CharField(max_length=255, unique=True)
    """``*`` is the row of the global defaults."""
    compatibility = models.CharField(max_length=20, blank=True)
    mode = models.CharField(max_length=10, blank=True)
    latest = OrderedJSONField(null=True, blank=True)
    """The latest version as in the snapshot: ``version``, ``id``, ``type``, ``schema``, ``references`` (pairs of name
    and text, each after those that it references itself). None if there is no version."""
    numbers = OrderedJSONField(default=dict, blank=True)
    """The numbers of its ``live`` and ``deleted`` versions, for the audit log."""

    published = represented = ("name", "compatibility", "mode", "latest")
    recorded_only = ("numbers",)

    objects = SubjectQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class SchemaVersion(models.Model):
    """A version of a subject. A soft delete hides it; a permanent delete removes the row."""

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
    """How events are delivered to the consumer."""

    WEBHOOK = "webhook"
    PULL = "pull"


class SubscriptionOrder(models.TextChoices):
    """The scope within which events keep their order."""

    CHANNEL = "channel"
    KEY = "key"


class SubscriptionState(models.TextChoices):
    """Whether a subscription delivers."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    """Queries of subscriptions."""

    def documented(self) -> Self:
        """Select everything that a document needs."""
        return self.select_related("consumer")

    def of(self, consumer: str) -> Self:
        """Return the subscriptions of one consumer."""
        return self.documented().filter(consumer__name=consumer)


class Subscription(Configured):
    """A durable subscription to a channel. Its position is kept by the event log."""

    id = models.CharField(max_length=40, primary_key=True)
    consumer = models.ForeignKey(Consumer, on_delete=models.CASCADE, related_name="subscriptions")
    key = models.CharField(max_length=100, blank=True)
    """The key whose rights apply to its deliveries; empty if an operator created it."""
    type = models.CharField(max_length=10, choices=SubscriptionType)
    channel = models.CharField(max_length=1024, db_index=True)
    url = models.CharField(max_length=2000, blank=True)
    order = models.CharField(max_length=10, choices=SubscriptionOrder)
    max_in_flight = models.PositiveIntegerField()
    max_attempts = models.PositiveIntegerField()
    retry_schedule_s = OrderedJSONField()
    ack_wait_s = models.FloatField()
    position = models.BigIntegerField()
    """The id after which it starts."""
    state = models.CharField(max_length=10, choices=SubscriptionState, default=SubscriptionState.ACTIVE)
    state_reason = models.CharField(max_length=40, blank=True)
    alert_url = models.CharField(max_length=2000, blank=True)
    alert_lag_events = models.BigIntegerField(null=True, blank=True)
    alert_lag_s = models.FloatField(null=True, blank=True)
    secret_generation = models.PositiveIntegerField(default=1)
    previous_secret_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    version = models.PositiveBigIntegerField(default=1)
    """Counts changes, so that a caller can wait until its change has reached the gateway."""

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
    """Queries of dead letters."""

    def on(self, channel: str) -> Self:
        """Return the dead letters of one channel."""
        return self.filter(channel=channel)


class DeadLetter(Represented):
    """An event that could not be accepted or delivered, with the reason."""

    made_at = models.CharField(max_length=40, blank=True)
    """When the stream it arrived on was created: sequences are unique only within one stream."""
    sequence = models.BigIntegerField()
    channel = models.CharField(max_length=200)
    address = models.CharField(max_length=1024)
    reason = models.CharField(max_length=40, db_index=True)
    detail = models.CharField(max_length=1000, blank=True)
    pointer = models.CharField(max_length=500, blank=True)
    consumer = models.CharField(max_length=100, blank=True, db_index=True)
    protocol = models.CharField(max_length=10, blank=True)
    subscription = models.CharField(max_length=40, blank=True, db_index=True)
    """The subscription that could not deliver it; empty if it was never accepted."""
    attempts = models.PositiveIntegerField(default=1)
    event = OrderedJSONField()
    event_bytes = models.PositiveIntegerField(default=0)
    """The size of the event as it is stored."""
    dead_at = models.DateTimeField(db_index=True)

    identity = "id"
    represented = (
        "id", "channel", "address", "reason", "detail", "pointer", "consumer", "protocol", "subscription", "attempts",
        "event_bytes", "dead_at",
    )  # fmt: skip
    """Without the event, which may be large: lists do not show it, and the audit log keeps it no longer than this."""

    objects = DeadLetterQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = (models.UniqueConstraint(fields=("made_at", "sequence"), name="dead_letter_once"),)
        # What the bounds of a channel are computed from, without reading the rows.
        indexes = (models.Index(fields=("channel", "id", "event_bytes"), name="dead_letter_bounds"),)

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}"


class DeadLetterPosition(models.Model):
    """How far the stream of dead letters has been read; changed in the transaction that writes the rows."""

    made_at = models.CharField(max_length=40, primary_key=True)
    """When the stream was created."""
    sequence = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.made_at} {self.sequence}"


class ConnectorDirection(models.TextChoices):
    """The direction of a connector: source into the channel, sink out of it."""

    SOURCE = "source"
    SINK = "sink"


class ConnectorStart(models.TextChoices):
    """Where a new sink starts reading."""

    EARLIEST = "earliest"
    LATEST = "latest"


class ConnectorQuerySet(models.QuerySet["Connector"]):
    """Queries of connectors."""

    def documented(self) -> Self:
        """Select everything that a document needs."""
        return self


class Connector(Configured):
    """Another broker as a source or a sink of a channel; docs/connectors.md describes ``options``."""

    id = models.CharField(max_length=40, primary_key=True)
    """Names a sink's durable consumer: a connector that is recreated under the same name starts from scratch."""
    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    type = models.CharField(max_length=20)
    direction = models.CharField(max_length=10, choices=ConnectorDirection)
    channel = models.CharField(max_length=200, db_index=True)
    options = OrderedJSONField(default=dict, blank=True)
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
