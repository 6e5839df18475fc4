"""Tokens of the management API. A token is shown once; only its digest is stored."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from rest_framework.authentication import TokenAuthentication
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from operators.sign_in import wrong_token

DIGEST_CHARS = 40
"""The length of the framework's column: 160 bits of the SHA-256 digest of a random secret."""


def issue_token(user: User) -> str:
    """Replace an operator's token and return the new one, which cannot be read again."""
    text = secrets.token_hex(20)
    store_token(user, text)
    return text


def store_token(user: User, text: str) -> None:
    """Replace an operator's token by the given one."""
    with transaction.atomic():
        Token.objects.filter(user=user).delete()
        Token.objects.create(user=user, key=digest(text))


def is_token_of(user: User, text: str) -> bool:
    """Return whether this is the operator's token now."""
    return Token.objects.filter(user=user, key=digest(text)).exists()


def digest(text: str) -> str:
    """Return the digest that is stored of a token."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


class DigestedTokenAuthentication(TokenAuthentication):
    """The framework's authentication, with tokens found by their digest: the table contains no usable token."""

    def authenticate(self, request: Request) -> Any:
        """Return the operator and the token, or None without a token. Raises AuthenticationFailed and Refused."""
        try:
            return super().authenticate(request)
        except AuthenticationFailed as failed:
            raise wrong_token(request, failed) from None

    def authenticate_credentials(self, key: str) -> Any:
        """Return the operator and the token. Raises AuthenticationFailed."""
        return super().authenticate_credentials(digest(key))
