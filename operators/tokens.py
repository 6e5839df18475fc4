"""Tokens of the management API: shown once, and only a digest of each is kept."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token

DIGEST_CHARS = 40
"""As many as the framework's column holds: 160 bits of SHA-256, of a secret that is itself random."""


def issue_token(user: User) -> str:
    """Give an operator a new token, in place of the one before. It cannot be read again."""
    text = secrets.token_hex(20)
    keep_token(user, text)
    return text


def keep_token(user: User, text: str) -> None:
    """Let a token that is known already open the API for an operator, in place of the one before."""
    with transaction.atomic():
        Token.objects.filter(user=user).delete()
        Token.objects.create(user=user, key=digest(text))


def digest(text: str) -> str:
    """Give what is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


class DigestedTokenAuthentication(TokenAuthentication):
    """The framework's, with tokens looked up by their digest: who reads the table can open nothing."""

    def authenticate_credentials(self, key: str) -> Any:
        """Give the operator and the token. Raises AuthenticationFailed."""
        return super().authenticate_credentials(digest(key))
