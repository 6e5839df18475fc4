"""Validate how a route forwards calls to its upstream: timeouts, names, authorization and the upstream's credential."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from django.conf import settings
from django.core.exceptions import ValidationError

from gateway.credentials.sealed import NotOpened, Sealed, seal, unseal
from gateway.snapshot.documents import credential_purpose
from gateway.snapshot.methods import takes
from routes.models import EncodedSlashes, Route, UpstreamAuthorization

TIMEOUTS = ("connect_s", "first_byte_s", "idle_s")
TIMEOUT_MAX_S = 86_400
VALUE_MAX_CHARS = 8_000
FLAGS = ("reserved_override", "preserve_host", "rewrite_location", "idempotency", "compression")
NOT_CREDENTIALS = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "cookie", "date", "expect", "forwarded",
        "host", "http2-settings", "keep-alive", "proxy", "proxy-connection", "te", "trailer", "transfer-encoding",
        "upgrade", "via", "x-request-id",
    }
)  # fmt: skip
"""Headers that frame or describe the message, or that the gateway sets."""
OF_GATEWAY = ("sec-", "x-apimgmt-", "x-consumer-", "x-forwarded-")
_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def clean_forwarding(route: Route) -> None:
    """Validate the fields and fill in defaults. Raises ValidationError for the first invalid field."""
    for flag in FLAGS:
        if not isinstance(getattr(route, flag), bool):
            raise ValidationError({flag: "Must be true or false."})
    route.timeouts = clean_timeouts(route.timeouts)
    if route.encoded_slashes not in ("", *EncodedSlashes.values):
        raise ValidationError({"encoded_slashes": f"Must be one of {', '.join(EncodedSlashes.values)}, or empty."})
    if route.upstream_authorization not in UpstreamAuthorization.values:
        raise ValidationError({"upstream_authorization": f"Must be one of {', '.join(UpstreamAuthorization.values)}."})
    _check_upstream(route)
    if route.idempotency and (route.protocol != "http" or not takes(tuple(route.methods), "POST")):
        raise ValidationError({"idempotency": "Needs the protocol http and the method POST."})
    if route.compression and route.protocol != "websocket":
        raise ValidationError({"compression": "Needs the protocol websocket."})


def _check_upstream(route: Route) -> None:
    """Raise ValidationError for a field that only a route to an upstream can have."""
    if route.handler["type"] == "upstream":
        return
    unset = Route()
    for field in ("timeouts", "preserve_host", "rewrite_location", "upstream_authorization", "idempotency"):
        if getattr(route, field) != getattr(unset, field):
            raise ValidationError({field: "Needs a handler of the type upstream."})
    if route.sealed_credential:
        raise ValidationError({"upstream_credential": "Needs a handler of the type upstream."})


def clean_timeouts(value: Any) -> dict[str, float]:
    """Return the timeouts without empty ones, in seconds. Raises ValidationError for the first invalid one."""
    if not isinstance(value, Mapping):
        raise ValidationError({"timeouts": f"Must be an object with {', '.join(TIMEOUTS)}."})
    cleaned = {str(name): seconds for name, seconds in value.items() if seconds is not None}
    for name, seconds in cleaned.items():
        if name not in TIMEOUTS:
            raise ValidationError({f"timeouts.{name}": f"Unknown field; the timeouts are {', '.join(TIMEOUTS)}."})
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 < seconds <= TIMEOUT_MAX_S:
            raise ValidationError(
                {f"timeouts.{name}": f"Must be a number of seconds above 0, at most {TIMEOUT_MAX_S}."}
            )
    return cleaned


def sealed(route: Route, credential: Any) -> Sealed:
    """Return a credential of the upstream, encrypted for its route; empty for None. Raises ValidationError.

    The credential that the route has already keeps its encrypted form, so that setting it again changes nothing.
    """
    if credential is None or isinstance(credential, Sealed):
        return credential or Sealed()
    secret = orjson.dumps(_clean_credential(credential))
    secret_key, purpose = settings.SECRET_KEY.encode(), credential_purpose(route.name)
    try:
        if route.sealed_credential and unseal(secret_key, purpose, route.sealed_credential) == secret:
            return Sealed(route.sealed_credential)
    except NotOpened:
        pass  # It is replaced.
    return seal(secret_key, purpose, secret)


def _clean_credential(credential: Any) -> dict[str, str]:
    if not isinstance(credential, Mapping) or set(credential) != {"header", "value"}:
        raise ValidationError({"upstream_credential": "Must be an object with header and value, or null."})
    header, value = credential["header"], credential["value"]
    if not isinstance(header, str) or not _NAME.fullmatch(header):
        raise ValidationError({"upstream_credential.header": "Must be a name of letters, digits and hyphens."})
    if header.lower() in NOT_CREDENTIALS or header.lower().startswith(OF_GATEWAY):
        raise ValidationError({"upstream_credential.header": f"{header} cannot hold a credential."})
    if not isinstance(value, str) or len(value) > VALUE_MAX_CHARS or not _VALUE.fullmatch(value):
        raise ValidationError(
            {"upstream_credential.value": f"Must be 1 to {VALUE_MAX_CHARS} characters of printable ASCII."}
        )
    return {"header": header.lower(), "value": value}
