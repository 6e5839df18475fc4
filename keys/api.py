"""Keys and JWT issuers in the management API."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from django.http import Http404
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from consumers.api import Limits, Metadata, Name, Scopes, Strings
from consumers.models import Consumer
from gateway.snapshot.documents import ALGORITHMS
from keys import issuers, services
from keys.models import JwtIssuer, Key
from operators.objects import Collection, Fields, Objects


class KeyFields(Fields):
    """A key, without its secret."""

    id = serializers.CharField(read_only=True)
    name = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    consumer = serializers.CharField(read_only=True)
    scopes = Scopes(required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    allowed_ips = Strings(required=False)
    allowed_origins = Strings(required=False)
    limits = Limits(required=False)
    metadata = Metadata(required=False)
    created_at = serializers.DateTimeField(read_only=True)
    last_used_at = serializers.DateTimeField(read_only=True, allow_null=True)
    revoked_at = serializers.DateTimeField(read_only=True, allow_null=True)
    revoked_reason = serializers.CharField(read_only=True)
    rotated_from = serializers.CharField(read_only=True, allow_null=True)


class NewKeyFields(KeyFields):
    """A new key with its text, which is shown only once."""

    key = serializers.CharField(read_only=True, help_text="The key itself. It cannot be read again.")


class RotationFields(Fields):
    """How a key is rotated."""

    overlap_s = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=services.OVERLAP_MAX_S,
        help_text="How long the old key stays valid; 3600 by default.",
    )


class RevocationFields(Fields):
    """Why a key is revoked."""

    reason = serializers.CharField(required=False, allow_blank=True, max_length=services.REASON_MAX_CHARS)


class LeakFields(Fields):
    """A key that was found in public."""

    key = serializers.CharField(write_only=True, max_length=200, trim_whitespace=False)
    revoked = serializers.BooleanField(read_only=True, help_text="False if the text is not a key of this gateway.")
    id = serializers.CharField(read_only=True, allow_null=True)


@extend_schema_field({"type": "string", "pattern": "^https?://[A-Za-z0-9[]"})
class WebUrl(serializers.CharField):
    """An absolute URL; the service validates it."""


@extend_schema_field({"type": "array", "items": {"type": "string", "enum": list(ALGORITHMS)}})
class Algorithms(serializers.JSONField):
    """The algorithms that an issuer may sign with; the service validates them."""


class IssuerFields(Fields):
    """A trusted issuer of tokens."""

    name = Name()
    issuer = serializers.CharField(trim_whitespace=False)
    jwks_url = WebUrl(trim_whitespace=False)
    audience = serializers.CharField(trim_whitespace=False)
    algorithms = Algorithms(required=False)
    consumer_claim = serializers.CharField(required=False, trim_whitespace=False)


class KeyFilters(filters.FilterSet):  # type: ignore[misc]
    """The filters of the list of keys."""

    consumer = filters.CharFilter(field_name="consumer__name")
    state = filters.ChoiceFilter(
        method="in_state", choices=[(state, state) for state in ("active", "expired", "revoked")]
    )

    class Meta:
        model = Key
        fields = ("consumer",)

    def in_state(self, keys: QuerySet[Key], name: str, state: str) -> QuerySet[Key]:
        """Return the keys that are active, expired or revoked now."""
        is_expired = Q(expires_at__lte=timezone.now())
        return {
            "active": keys.filter(revoked_at=None).exclude(is_expired),
            "expired": keys.filter(is_expired, revoked_at=None),
            "revoked": keys.exclude(revoked_at=None),
        }[state]


class KeyObjects(Collection):
    """API keys of consumers. A key is issued at its consumer; a revoked key is listed until it is deleted."""

    queryset = Key.objects.with_consumer()
    serializer_class = KeyFields
    filterset_class = KeyFilters
    ordering = ("-created_at", "id")
    lookup_value_regex = "[A-Za-z0-9]+"

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Update the fields in the body; open connections follow new scopes and limits."""
        changes = self.read_body(KeyFields, partial=True)
        return Response(KeyFields(services.update_key(self.get_object(), **changes, by=self.operator)).data)

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Revoke and delete a key; its connections are closed within a second."""
        services.delete_key(self.get_object(), by=self.operator)
        return Response(status=204)

    @extend_schema(request=RotationFields, responses={201: NewKeyFields})
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Issue a copy of this key, which stays valid for the overlap. Only this response contains `key`."""
        issued = services.rotate_key(self.get_object(), **self.read_body(RotationFields), by=self.operator)
        return _show_once(*issued)

    @extend_schema(request=RevocationFields, responses=KeyFields)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Revoke a key; its connections are closed within a second."""
        key = services.revoke_key(self.get_object(), **self.read_body(RevocationFields), by=self.operator)
        return Response(KeyFields(key).data)

    @extend_schema(request=LeakFields, responses=LeakFields)
    @action(detail=False, methods=["post"])
    def leaked(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Revoke a key that was found in public, by its text."""
        key = services.leaked_key(self.read_body(LeakFields)["key"].strip(), by=self.operator)
        return Response({"revoked": key is not None, "id": key.id if key is not None else None})


class KeysOfConsumer(Collection):
    """The keys of one consumer."""

    queryset = Key.objects.with_consumer()
    serializer_class = KeyFields
    ordering = ("-created_at", "id")

    def get_queryset(self) -> QuerySet[Key]:
        """Return the keys of the consumer in the URL. Raises Http404."""
        return super().get_queryset().filter(consumer=self._consumer())

    @extend_schema(request=KeyFields, responses={201: NewKeyFields})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Issue a key. Only this response contains `key`."""
        issued = services.issue_key(consumer=self._consumer(), **self.read_body(KeyFields), by=self.operator)
        return _show_once(*issued)

    def _consumer(self) -> Consumer:
        name = self.kwargs["name"]
        consumer = None if "\x00" in name else Consumer.objects.with_tier().filter(name=name).first()
        if consumer is None:
            raise Http404
        return consumer


class IssuerObjects(Objects):
    """Trusted issuers of tokens."""

    queryset = JwtIssuer.objects.documented()
    serializer_class = IssuerFields
    lookup_field = "name"
    lookup_value_regex = "[^/]+"
    create_row = staticmethod(issuers.create_issuer)
    update_row = staticmethod(issuers.update_issuer)
    delete_row = staticmethod(issuers.delete_issuer)


def _show_once(key: Key, text: str) -> Response:
    body = NewKeyFields({**key.representation(), "key": text}).data
    return Response(body, 201, headers={"Cache-Control": "no-store"})


def register(router: BaseRouter) -> None:
    """Add this app's collections."""
    router.register("keys", KeyObjects, basename="key")
    router.register(r"consumers/(?P<name>[^/]+)/keys", KeysOfConsumer, basename="consumer-key")
    router.register("issuers", IssuerObjects, basename="issuer")
