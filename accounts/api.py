"""Tokens of operators in the management API."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from accounts import tokens
from accounts.models import Token
from accounts.token_admin import may_revoke
from operators.objects import Collection, Fields


class IsOperator(BasePermission):
    """Requires staff, without further permissions."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return whether the caller is an operator."""
        return bool(request.user.is_authenticated and request.user.is_active and request.user.is_staff)


class TokenFields(Fields):
    """A token, without its text."""

    id = serializers.IntegerField(read_only=True)
    prefix = serializers.CharField(read_only=True, help_text="How the token begins.")
    name = serializers.CharField(max_length=tokens.NAME_MAX_CHARS, trim_whitespace=False)
    account = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    last_used_at = serializers.DateTimeField(read_only=True, allow_null=True)
    expires_at = serializers.DateTimeField(
        required=False, help_text="By default, and at the latest, after the days of the setting TOKEN_DAYS."
    )
    revoked_at = serializers.DateTimeField(read_only=True, allow_null=True)


class NewTokenFields(TokenFields):
    """A new token with its text, which is shown only once."""

    token = serializers.CharField(read_only=True, help_text="The token itself. It cannot be read again.")


class TokenFilters(filters.FilterSet):  # type: ignore[misc]
    """The filters of the list of tokens."""

    account = filters.CharFilter(field_name="account__username")
    state = filters.ChoiceFilter(method="in_state", choices=[(name, name) for name in ("active", "expired", "revoked")])

    class Meta:
        model = Token
        fields = ("account",)

    def in_state(self, rows: QuerySet[Token], name: str, state: str) -> QuerySet[Token]:
        """Return the tokens that are active, expired or revoked now."""
        now = timezone.now()
        return {
            "active": rows.filter(revoked_at=None, expires_at__gt=now),
            "expired": rows.filter(revoked_at=None, expires_at__lte=now),
            "revoked": rows.exclude(revoked_at=None),
        }[state]


class TokenObjects(Collection):
    """An operator's own tokens, and those of all for operators with the right to view tokens."""

    queryset = Token.objects.select_related("account")
    serializer_class = TokenFields
    filterset_class = TokenFilters
    permission_classes = (IsOperator,)
    ordering = ("-created_at", "id")
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Token]:
        """Return the tokens that the operator may see."""
        return Token.objects.visible_to(self._account).select_related("account")

    @extend_schema(request=TokenFields, responses={201: NewTokenFields})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Issue a token of the operator itself. A token issues none that outlives it."""
        by_token = request.auth if isinstance(request.auth, Token) else None
        if by_token is not None and settings.REQUIRE_SECOND_FACTOR:
            raise PermissionDenied
        body = self.read_body(TokenFields)
        not_after = None if by_token is None else by_token.expires_at
        token, text = tokens.issue_token(self._account, **body, not_after=not_after, by=self.operator)
        headers = {"Location": request.build_absolute_uri(self.reverse_action("detail", [token.pk]))}
        return Response({**self.get_serializer(token).data, "token": text}, 201, headers=headers)

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Revoke a token: one's own, or any with the right to delete tokens. It stays in the list."""
        token = self.get_object()
        if not may_revoke(self._account, token):
            raise PermissionDenied
        tokens.revoke_token(token, by=self.operator)
        return Response(status=204)

    @property
    def _account(self) -> User:
        return cast("User", self.request.user)


def register(router: BaseRouter) -> None:
    """Add this app's collection."""
    router.register("tokens", TokenObjects, basename="token")
