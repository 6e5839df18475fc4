"""Requests to the provider: bounded in time and size, by https, and without redirects."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import orjson

from accounts.oidc.provider_settings import is_safe_url

TIMEOUT_S = 5.0
BODY_MAX_BYTES = 256 * 1024


class ProviderFailed(Exception):
    """The provider is unavailable, or answered something that is not valid. The message is safe to log."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return None: the answer that redirects is an error."""


_opener = urllib.request.build_opener(_NoRedirects)


def get(url: str) -> bytes:
    """Return a document of the provider. Raises ProviderFailed."""
    return _open(urllib.request.Request(url, headers={"Accept": "application/json"}), url)  # noqa: S310 - checked below


def post(url: str, fields: dict[str, str], authorization: str | None) -> dict[str, Any]:
    """Return the JSON object that the provider answers to a form. Raises ProviderFailed."""
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    if authorization is not None:
        headers["Authorization"] = authorization
    request = urllib.request.Request(url, urlencode(fields).encode(), headers)  # noqa: S310 - checked below
    return parsed(_open(request, url))


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises ProviderFailed."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ProviderFailed("the answer is not JSON") from None
    if not isinstance(document, dict):
        raise ProviderFailed("the answer is not an object")
    return document


def _open(request: urllib.request.Request, url: str) -> bytes:
    if not is_safe_url(url):
        raise ProviderFailed(f"{url} is not an https:// URL")
    try:
        with _opener.open(request, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read(BODY_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise ProviderFailed(f"{url} answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise ProviderFailed(f"{url} does not answer: {type(error).__name__}") from None
    if len(body) > BODY_MAX_BYTES:
        raise ProviderFailed(f"{url} answered more than {BODY_MAX_BYTES} bytes")
    return body
