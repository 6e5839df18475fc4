"""Dry runs: the same changes, made in a private copy of the configuration, so that nobody waits for their locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper

from configuration.bulk_rows import insert_unchanged
from configuration.kinds import KINDS
from events.models import Schema, SchemaVersion, Subject
from keys.models import Key


@contextmanager
def rehearsal(is_wanted: bool = True) -> Iterator[None]:
    """Run the block on a copy in memory that is dropped at its end, unless it is not wanted.

    The copy has the rows of the configuration, and of the operators whose rights count; all other tables are empty.
    """
    if not is_wanted:
        yield
        return
    rows = {model: list(model._default_manager.all()) for model in _copied()}
    actual = connections[DEFAULT_DB_ALIAS]
    copy = DatabaseWrapper({**actual.settings_dict, **_IN_MEMORY}, DEFAULT_DB_ALIAS)
    connections[DEFAULT_DB_ALIAS] = copy
    try:
        _fill(copy, rows)
        yield
    finally:
        connections[DEFAULT_DB_ALIAS] = actual
        copy.close()


_IN_MEMORY = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {}, "ATOMIC_REQUESTS": False}


def _copied() -> list[type[models.Model]]:
    user = get_user_model()
    own = [kind.model for kind in KINDS]
    through = [user.groups.through, user.user_permissions.through, Group.permissions.through]
    return [ContentType, Permission, Group, user, *through, *own, Key, Subject, Schema, SchemaVersion]


def _fill(copy: DatabaseWrapper, rows: dict[type[models.Model], list[models.Model]]) -> None:
    with copy.schema_editor() as editor:
        for model in apps.get_models():
            if model._meta.managed and not model._meta.proxy:
                editor.create_model(model)
    with transaction.atomic():  # at whose end foreign keys are checked
        for model, copied in rows.items():
            insert_unchanged(copy, model, copied)
