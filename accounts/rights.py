"""Which operators' accounts an operator may change: none that has rights above the operator's own."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User
from django.db.models import Q


def exceeds(account: User, operator: User) -> bool:
    """Return whether an account has rights that the operator lacks, also while the account is disabled."""
    if operator.is_superuser:
        return False
    return account.is_superuser or not held(account) <= held(operator)


def held(account: User) -> set[int]:
    """Return the ids of an account's own permissions and of those of its groups; a superuser has all without them."""
    return set(Permission.objects.filter(Q(user=account) | Q(group__user=account)).values_list("pk", flat=True))
