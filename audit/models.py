"""Change: one entry of the audit log, with its actor and the object before and after. It is immutable."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn, Self

from django.db import models


class Action(models.TextChoices):
    """What was done to the object."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


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


class Change(models.Model):
    """One change. ``before`` and ``after`` are records (:mod:`audit.configured`), None where there is no object."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.CharField(max_length=150)
    kind = models.CharField(max_length=20)
    name = models.CharField(max_length=255)
    action = models.CharField(max_length=10, choices=Action)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
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


def _immutable() -> NoReturn:
    raise TypeError("A change is never altered or deleted.")
