"""Whose account an operator of the provider opens: the linked one, or, where configured, one by e-mail or a new one."""

from __future__ import annotations

import logging
import re
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.actor import current
from accounts.models import Identity, account_with_email
from accounts.oidc.provider_settings import ProviderSettings
from audit.services import record

logger = logging.getLogger(__name__)

BY = "OpenID Connect"
NAME_MAX_CHARS = 100
_NOT_IN_NAMES = re.compile(r"[^\w.@+-]")


class NotAllowed(Exception):
    """The provider's operator may not sign in here. The message is for the operator."""


def account_of(claims: dict[str, Any], settings: ProviderSettings) -> User:
    """Return the account that validated claims open, with the rights that the groups give. Raises NotAllowed."""
    groups, email = groups_of(claims, settings), verified_email(claims)
    if not is_allowed(groups, email, settings):
        raise NotAllowed("Your account at the provider may not sign in here.")
    with transaction.atomic():
        identity = Identity.objects.filter(issuer=settings.issuer, subject=claims["sub"]).first()
        account = identity.account if identity is not None else _linked(claims, email, settings)
        if not account.is_active:
            raise NotAllowed("This account is disabled.")
        _apply_groups(account, groups, settings)
    return account


def is_allowed(groups: frozenset[str], email: str, settings: ProviderSettings) -> bool:
    """Return whether a member of these groups, with this verified e-mail address or none, may sign in."""
    domain = f"@{email.rpartition('@')[2]}" if email else ""
    is_named = bool(email) and bool({email, domain} & settings.allowed_emails)
    return is_named or bool(groups & settings.allowed_groups)


def groups_of(claims: dict[str, Any], settings: ProviderSettings) -> frozenset[str]:
    """Return the groups that the provider names."""
    groups = claims.get(settings.groups_claim)
    return frozenset(group for group in groups if isinstance(group, str)) if isinstance(groups, list) else frozenset()


def verified_email(claims: dict[str, Any]) -> str:
    """Return the e-mail address in lower case, if the provider says that it has verified it; else an empty text."""
    email = claims.get("email")
    return email.lower() if isinstance(email, str) and claims.get("email_verified") is True else ""


def _linked(claims: dict[str, Any], email: str, settings: ProviderSettings) -> User:
    """Return the account with the e-mail address, or a new one, and link it to the identity. Raises NotAllowed."""
    account = account_with_email(email) if email and settings.links_by_email else None
    if account is not None and account.identities.filter(issuer=settings.issuer).exists():
        raise NotAllowed("Your e-mail address belongs to the account of somebody else here.")
    if account is None and not settings.creates_accounts:
        raise NotAllowed("There is no account for you here; ask an operator to create one.")
    if account is None:
        account = _created(claims, email)
    identity = Identity(account=account, issuer=settings.issuer, subject=claims["sub"], created_at=timezone.now())
    identity.save(force_insert=True)
    after = {"account": account.get_username(), "issuer": settings.issuer, "subject": claims["sub"]}
    record("identity", account.get_username(), before=None, after=after, note=current().note(), by=BY)
    return account


def _created(claims: dict[str, Any], email: str) -> User:
    """Create an operator without a password, under a name that nobody has."""
    wanted = str(claims.get("preferred_username") or email or claims["sub"])
    base = _NOT_IN_NAMES.sub("-", wanted)[:NAME_MAX_CHARS] or "operator"
    names = [base, *(f"{base}-{number}" for number in range(2, 100))]
    taken = {name.lower() for name in User.objects.values_list("username", flat=True)}
    name = next((name for name in names if name.lower() not in taken), None)
    if name is None:
        raise NotAllowed("There are too many accounts of your name.")
    account = User(username=name, email=email, is_staff=True)
    account.set_unusable_password()
    try:
        account.full_clean(exclude=["password"])
    except ValidationError:
        raise NotAllowed("Your name at the provider cannot be used here.") from None
    account.save()
    return account


def _apply_groups(account: User, groups: frozenset[str], settings: ProviderSettings) -> None:
    """Give the account what its groups at the provider give, and take what they no longer do."""
    wanted = {"is_staff": True}
    if settings.superuser_groups:
        wanted["is_superuser"] = bool(groups & settings.superuser_groups)
    changed = [field for field, value in wanted.items() if getattr(account, field) != value]
    for field in changed:
        setattr(account, field, wanted[field])
    if changed:
        account.save(update_fields=changed)
    ours = {name for group, name in settings.groups.items() if group in groups}
    mapped = Group.objects.filter(name__in=settings.groups.values())
    present = set(account.groups.values_list("pk", flat=True))
    for group in mapped:
        if group.name in ours and group.pk not in present:
            account.groups.add(group)
        elif group.name not in ours and group.pk in present:
            account.groups.remove(group)
    if missing := ours - {group.name for group in mapped}:
        logger.warning("OIDC_GROUPS names groups that do not exist: %s", ", ".join(sorted(missing)))
