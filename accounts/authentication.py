"""Authentication of the management API by tokens: found by their digest, valid until they expire or are revoked."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any

from django.db import OperationalError
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.models import Token
from accounts.tokens import digest
from operators.sign_in import wrong_token

LAST_USED_PRECISION = timedelta(minutes=1)


class OperatorTokens(TokenAuthentication):
    """The framework's authentication, with tokens that expire; wrong ones are counted."""

    def authenticate(self, request: Request) -> Any:
        """Return the operator and the token, or None without a token. Raises AuthenticationFailed and Refused."""
        try:
            return super().authenticate(request)
        except AuthenticationFailed as failed:
            raise wrong_token(request, failed) from None

    def authenticate_credentials(self, key: str) -> Any:
        """Return the operator and the token. Raises AuthenticationFailed."""
        now = timezone.now()
        token = Token.objects.usable(now).select_related("account").filter(digest=digest(key)).first()
        if token is None or not token.account.is_active:
            raise AuthenticationFailed("Invalid token.")
        _note_use(token, now)
        return token.account, token


def _note_use(token: Token, now: datetime) -> None:
    """Store when a token was used, at most once a minute; a database that refuses writes stops no read."""
    since = now - LAST_USED_PRECISION
    if token.last_used_at is None or token.last_used_at < since:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=since)
        with contextlib.suppress(OperationalError):
            Token.objects.filter(stale, pk=token.pk).update(last_used_at=now)
