"""The audit trail of accounts: sign-ins, and every change of an account or a group, whichever code makes it.

The receivers are connected to Django's signals, so that the admin, commands and sign-in pages are all recorded. No
record contains a password, a digest or a code.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from accounts.actor import Actor, current
from audit.models import Action, Change
from audit.services import record, record_event

logger = logging.getLogger(__name__)

ACCOUNT, GROUP, SESSION, PASSWORD = "account", "group", "session", "password"
UNKNOWN = "unknown"
"""The name of a failed sign-in to no account: people type passwords into the wrong field."""
FAILURES_MAX = 10
"""How many failed sign-ins are recorded in a minute: a stranger must not fill the log."""
FIELDS = ("username", "email", "first_name", "last_name", "is_active", "is_staff", "is_superuser")
_BEFORE = "_recorded_before"


def sign_in_failed(username: str, way: str, request: HttpRequest | None) -> None:
    """Record a failed sign-in, unless there were too many in this minute."""
    since = timezone.now() - timedelta(minutes=1)
    recent = Change.objects.filter(at__gte=since, action=Action.SIGN_IN_FAILED).count()
    if recent >= FAILURES_MAX:
        logger.warning("a failed sign-in is not recorded: there were %d within a minute", recent)
        return
    name = username if User.objects.filter(username=username).exists() else UNKNOWN
    if recent == FAILURES_MAX - 1:
        way = f"{way}; further failures within a minute are not recorded"
    record_event(SESSION, name, Action.SIGN_IN_FAILED, note=_actor(name, request).note(way), by=name)


def sign_out_note(request: HttpRequest, reason: str) -> None:
    """Set why a request ends its session, for the record of the sign-out that follows."""
    setattr(request, "_sign_out_reason", reason)  # noqa: B010 - read by the receiver below


def sign_in_note(request: HttpRequest, way: str) -> None:
    """Set how a request signs an operator in, for the record of the sign-in that follows."""
    setattr(request, "_sign_in_way", way)  # noqa: B010 - read by the receiver below


@receiver(user_logged_in)
def _signed_in(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    name = user.get_username()
    way = getattr(request, "_sign_in_way", "with a password")
    record_event(SESSION, name, Action.SIGNED_IN, note=_actor(name, request).note(way), by=name)


@receiver(user_logged_out)
def _signed_out(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if user is not None:
        name = user.get_username()
        note = _actor(name, request).note(getattr(request, "_sign_out_reason", ""))
        record_event(SESSION, name, Action.SIGNED_OUT, note=note, by=name)


@receiver(user_login_failed)
def _failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    sign_in_failed(str(credentials.get("username", "")), "with a password", request)


def account_record(account: User) -> dict[str, Any]:
    """Return what the audit log keeps of an account."""
    rights = account.user_permissions.select_related("content_type")
    return {
        **{field: getattr(account, field) for field in FIELDS},
        "groups": sorted(account.groups.values_list("name", flat=True)),
        "permissions": sorted(map(_codename, rights)),
    }


def group_record(group: Group) -> dict[str, Any]:
    """Return what the audit log keeps of a group."""
    return {"name": group.name, "permissions": sorted(map(_codename, group.permissions.select_related("content_type")))}


@receiver((pre_save, pre_delete), sender=User)
@receiver((pre_save, pre_delete), sender=Group)
def _before(sender: type[User | Group], instance: Any, **kwargs: Any) -> None:
    if kwargs.get("raw") or kwargs.get("update_fields") == frozenset({"last_login"}):
        setattr(instance, _BEFORE, None)
        return
    stored = None if instance.pk is None else sender._default_manager.filter(pk=instance.pk).first()
    setattr(instance, _BEFORE, None if stored is None else (_record_of(stored), getattr(stored, "password", "")))


@receiver(post_save, sender=User)
@receiver(post_save, sender=Group)
def _saved(sender: Any, instance: Any, created: bool, raw: bool = False, **kwargs: Any) -> None:
    before: tuple[dict[str, Any], str] | None = getattr(instance, _BEFORE, None)
    if created and not raw:
        _record(instance, None, _record_of(instance))
    if created or before is None:
        return
    _record(instance, before[0], _record_of(instance))
    if isinstance(instance, User) and instance.password != before[1]:
        name, actor = instance.get_username(), current()
        record_event(PASSWORD, name, Action.UPDATED, note=actor.note(), by=actor.name)


@receiver(post_delete, sender=User)
@receiver(post_delete, sender=Group)
def _deleted(sender: Any, instance: Any, **kwargs: Any) -> None:
    before = getattr(instance, _BEFORE, None)
    if before is not None:
        _record(instance, before[0], None)


@receiver(m2m_changed, sender=User.groups.through)
@receiver(m2m_changed, sender=User.user_permissions.through)
@receiver(m2m_changed, sender=Group.permissions.through)
def _members_changed(
    sender: Any, instance: Any, action: str, reverse: bool, model: Any, pk_set: set[int] | None, **kwargs: Any
) -> None:
    when, _, what = action.partition("_")
    if when == "pre":
        changed = list(_members(instance, what, model, pk_set, sender)) if reverse else [instance]
        setattr(instance, _BEFORE, [(row, _record_of(row)) for row in changed])
    else:
        for row, before in getattr(instance, _BEFORE, None) or []:
            _record(row, before, _record_of(row))


def _members(instance: Any, what: str, model: Any, pk_set: set[int] | None, sender: Any) -> QuerySet[Any]:
    """Return the accounts or groups whose rights change from the other side, such as ``group.user_set.add``."""
    if what != "clear":
        return model._default_manager.filter(pk__in=pk_set or ())  # type: ignore[no-any-return]
    names = {Group: "group", Permission: "permission"}
    through = sender._default_manager.filter(**{names[type(instance)]: instance})
    return model._default_manager.filter(pk__in=through.values(model._meta.model_name))  # type: ignore[no-any-return]


def _record(instance: User | Group, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    actor = current()
    kind = ACCOUNT if isinstance(instance, User) else GROUP
    with transaction.atomic():
        record(kind, str(instance), before=before, after=after, note=actor.note(), by=actor.name)


def _record_of(row: User | Group) -> dict[str, Any]:
    return account_record(row) if isinstance(row, User) else group_record(row)


def _codename(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


def _actor(name: str, request: HttpRequest | None) -> Actor:
    """Return the operator at the address of a request; without one, such as in a command, at none."""
    return Actor(name, "" if request is None else str(request.META.get("REMOTE_ADDR", "")))
