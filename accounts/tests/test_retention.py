"""Tokens go some time after they have expired or were revoked; valid ones stay, and the audit log tells."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from accounts.models import Token
from accounts.retention import keep_tokens
from audit.models import Change

pytestmark = pytest.mark.django_db


def token(number, *, expires_days, revoked_days=None):
    now = timezone.now()
    return Token(
        account=User.objects.get(), name=f"t{number}", prefix=f"p{number}", digest=f"{number:040}", created_at=now,
        expires_at=now + timedelta(days=expires_days),
        revoked_at=None if revoked_days is None else now + timedelta(days=revoked_days),
    )  # fmt: skip


def test_tokens_of_no_use_go_with_a_record():
    User.objects.create_user("ann")
    Token.objects.bulk_create(
        [
            token(1, expires_days=1),
            token(2, expires_days=-89),
            token(3, expires_days=-91),
            token(4, expires_days=30, revoked_days=-91),
            token(5, expires_days=30, revoked_days=-1),
        ]
    )
    Change.objects.all().remove_exported()
    assert list(keep_tokens(timezone.now())) == [2]
    assert sorted(Token.objects.values_list("name", flat=True)) == ["t1", "t2", "t5"]
    assert sorted(Change.objects.values_list("kind", "name", "action", "actor")) == [
        ("token", "p3", "deleted", "retention"), ("token", "p4", "deleted", "retention"),
    ]  # fmt: skip
