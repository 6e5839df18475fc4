"""Errors of the management API as problem details (RFC 9457), with the reasons of the gateway."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from gateway.refusals import Reason, Refused

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 1.0
_REASONS = {
    401: Reason.UNAUTHENTICATED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    405: Reason.METHOD_NOT_ALLOWED,
    413: Reason.TOO_LARGE,
}
_UNAUTHENTICATED = (
    "Send a token as `Authorization: Token TOKEN`, or sign in. Keys of consumers are not valid for the management API."
)


def problem_response(error: Exception, context: dict[str, Any]) -> Response:
    """Return the response to an exception of a view. An unexpected one is logged, and answered without details."""
    refused = refusal_of(error)
    if refused is None:
        logger.error("management API failed: %s", context["request"].path, exc_info=error)
        refused = Refused(Reason.INTERNAL)
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in refused.http_headers()
        if name not in (b"content-type", b"www-authenticate")
    }
    if refused.status == 401:
        headers["WWW-Authenticate"] = getattr(error, "auth_header", "Token")
    return Response(refused.problem(), refused.status, headers=headers, content_type=CONTENT_TYPE)


def refusal_of(error: Exception) -> Refused | None:
    """Return the refusal for an exception, or None for an unexpected one."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ValidationError | exceptions.ValidationError):
        return _invalid(list(_field_errors(error)))
    if isinstance(error, OperationalError | InterfaceError | ConnectionError):
        return Refused(Reason.OVERLOADED, retry_after_s=RETRY_AFTER_S)
    if isinstance(error, Http404):
        return Refused(Reason.NOT_FOUND, "No such object exists.")
    if isinstance(error, PermissionDenied):
        return Refused(Reason.FORBIDDEN, "Your account lacks the permission for this.")
    if not isinstance(error, exceptions.APIException):
        return None
    return _refusal_of_framework(error)


def _refusal_of_framework(error: exceptions.APIException) -> Refused:
    status = error.status_code
    detail = _UNAUTHENTICATED if status == 401 else "No such object exists." if status == 404 else str(error.detail)
    return Refused(_REASONS.get(status, Reason.INVALID_REQUEST), detail, status=status)


def _invalid(field_errors: list[tuple[str, str]]) -> Refused:
    field, message = field_errors[0]
    errors: dict[str, list[str]] = {}
    for name, text in field_errors:
        errors.setdefault(name, []).append(text)
    return Refused(Reason.INVALID_REQUEST, f"{field}: {message}" if field else message, members={"errors": errors})


def _field_errors(error: ValidationError | exceptions.ValidationError) -> Iterator[tuple[str, str]]:
    if isinstance(error, exceptions.ValidationError):
        yield from _flat(error.detail, "")
    elif hasattr(error, "error_dict"):
        for name, messages in error.message_dict.items():
            yield ("" if name == NON_FIELD_ERRORS else name), " ".join(messages)
    else:
        yield "", " ".join(error.messages)


def _flat(detail: Any, at: str) -> Iterator[tuple[str, str]]:
    """Yield the framework's nested errors, each with its path, such as ``limits[0].per``."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            is_non_field = name in (NON_FIELD_ERRORS, api_settings.NON_FIELD_ERRORS_KEY)
            yield from _flat(inner, at if is_non_field else f"{at}.{name}" if at else str(name))
    elif isinstance(detail, list) and any(isinstance(inner, dict | list) for inner in detail):
        for number, inner in enumerate(detail):
            yield from _flat(inner, f"{at}[{number}]")
    else:
        yield at, " ".join(map(str, detail)) if isinstance(detail, list) else str(detail)


@csrf_exempt
def not_found(request: HttpRequest, rest: str = "") -> JsonResponse:
    """Return 404 for an unknown URL of the API, with any method; without effects it needs no CSRF protection."""
    refused = Refused(Reason.NOT_FOUND, "Nothing exists at this URL; `/api/v1/schema/` describes the API.")
    return JsonResponse(refused.problem(), status=refused.status, content_type=CONTENT_TYPE)
