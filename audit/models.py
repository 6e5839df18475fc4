"""The audit log: changes, each with its actor and the object before and after, and the checkpoint of a bounded log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn, Self

from django.db import models

from audit.ordered_json import OrderedJSONField


class Action(models.TextChoices):
    """What was done to the object; the last three are done by an operator, and change no object."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    SIGNED_IN = "signed-in"
    SIGNED_OUT = "signed-out"
    SIGN_IN_FAILED = "sign-in-failed"


class ChangeQuerySet(models.QuerySet["Change"]):
    """Reads of changes."""

    def unpublished(self) -> Self:
        """Return the changes that are not yet published to the data plane, in order."""
        return self.filter(published_at=None).order_by("id")

    def as_of(self, instant: datetime) -> Self:
        """Return the changes made until an instant, in order."""
        return self.filter(at__lte=instant).order_by("id")

    def of(self, kind: str, name: str) -> Self:
        """Return the history of one object, newest first."""
        return self.filter(kind=kind, name=name).order_by("-id")

    def delete(self) -> NoReturn:
        """Raise TypeError: the audit log is immutable."""
        _immutable()

    def remove_exported(self) -> None:
        """Delete changes that were exported, where an operator bounds the log (:mod:`audit.retention`)."""
        models.QuerySet.delete(self)


class Change(models.Model):
    """One change. ``before`` and ``after`` are records (:mod:`audit.configured`), None where there is no object."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.CharField(max_length=150)
    kind = models.CharField(max_length=20)
    name = models.CharField(max_length=255)
    action = models.CharField(max_length=20, choices=Action)
    before = OrderedJSONField(null=True)
    after = OrderedJSONField(null=True)
    note = models.CharField(max_length=300, blank=True)
    published_at = models.DateTimeField(null=True, db_index=True)

    objects = ChangeQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = (models.Index(fields=("kind", "name")),)

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.action}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert a new change. Raises TypeError for one that is saved already."""
        if not self._state.adding:
            _immutable()
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise TypeError: the audit log is immutable."""
        _immutable()


class Checkpoint(models.Model):
    """From when on the audit log is complete, where an operator bounds it; one row."""

    begins_at = models.DateTimeField()
    """The configuration of every instant since follows from the log."""
    exported = models.BigIntegerField(default=0)
    """How many changes have been exported and deleted."""
    last_file = models.CharField(max_length=200)

    def __str__(self) -> str:
        return f"complete since {self.begins_at:%Y-%m-%dT%H:%M:%SZ}"

    @classmethod
    def advance(cls, begins_at: datetime, *, changes: int, file: str) -> None:
        """Note that changes before an instant were exported to a file, in the transaction that deletes them."""
        row = cls.objects.select_for_update().filter(pk=1).first() or cls(pk=1, begins_at=begins_at)
        row.begins_at, row.exported, row.last_file = max(row.begins_at, begins_at), row.exported + changes, file
        row.save()

    @classmethod
    def complete_since(cls) -> datetime | None:
        """Return the instant since which the log is complete; None if nothing was ever deleted from it."""
        return cls.objects.values_list("begins_at", flat=True).first()


def _immutable() -> NoReturn:
    raise TypeError("A change is never altered or deleted.")
