"""Validate URLs of upstreams: absolute, without credentials, and not link-local, where clouds serve credentials."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from gateway.upstream.outbound import is_forbidden, is_own
from gateway.wire.dot_segments import has_dot_segment
from gateway.wire.header_fields import OVERRIDES

SCHEMES = {"http": ("http", "https"), "sse": ("http", "https"), "websocket": ("ws", "wss", "http", "https")}
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
URL_MAX_CHARS = 2000
_PLAIN = re.compile(r"[!-~]+")
_PARAMETER = re.compile(r"\{([^{}]*)\}")


def check_url(url: str, protocol: str, parameters: list[str]) -> None:
    """Raise ValidationError for a URL that cannot be called or must not be."""
    if len(url) > URL_MAX_CHARS or not _PLAIN.fullmatch(url):
        raise ValidationError(
            {"handler.url": "Must be printable ASCII without spaces; percent-encode other characters."}
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValidationError({"handler.url": "Must be a valid URL."}) from None
    if parts.scheme not in SCHEMES[protocol] or not parts.hostname or port == 0 or "{" in parts.netloc:
        raise ValidationError(
            {"handler.url": f"Must be an absolute URL that begins with {' or '.join(SCHEMES[protocol])}://."}
        )
    if "@" in parts.netloc:
        raise ValidationError({"handler.url": "Must not contain credentials; use the policy set-headers."})
    if parts.fragment or "{" in parts.query:
        raise ValidationError({"handler.url": "Must have no fragment, and parameters only in its path."})
    if is_forbidden(parts.hostname, settings.OUTBOUND_ALLOWED_NETWORKS):
        raise ValidationError(
            {"handler.url": "Must not be a metadata service's address, unless OUTBOUND_ALLOWED_NETWORKS allows it."}
        )
    if is_own(parts.hostname, port or DEFAULT_PORTS[parts.scheme], settings.OWN_ENDPOINTS):
        raise ValidationError({"handler.url": "Must not be an engine of the gateway, nor the operators' pages."})
    _check_parameters("handler.url", parts.path, parameters)


def check_rewrite(rewrite: str | None, parameters: list[str]) -> None:
    """Raise ValidationError for a path that cannot replace the path of the URL."""
    if rewrite is None:
        return
    if len(rewrite) > URL_MAX_CHARS or not _PLAIN.fullmatch(rewrite) or not rewrite.startswith("/"):
        raise ValidationError(
            {"handler.rewrite": "Must be a path that begins with a slash, in printable ASCII without spaces."}
        )
    if "?" in rewrite or "#" in rewrite:
        raise ValidationError(
            {"handler.rewrite": "Must be a path without a query; the queries of the caller and of the URL are kept."}
        )
    _check_parameters("handler.rewrite", rewrite, parameters)


def clean_override_headers(names: Any) -> list[str]:
    """Return the names in lower case, each once. Raises ValidationError for any other than those that are dropped."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValidationError({"handler.override_headers": "Must be a list of names of headers."})
    cleaned = [name.lower() for name in names]
    if unknown := [name for name in cleaned if name not in OVERRIDES]:
        raise ValidationError(
            {"handler.override_headers": f"{unknown[0]} is not one of {', '.join(sorted(OVERRIDES))}."}
        )
    return list(dict.fromkeys(cleaned))


def _check_parameters(field: str, path: str, parameters: list[str]) -> None:
    for name in _PARAMETER.findall(path):
        if name.removesuffix("...") not in parameters:
            raise ValidationError({field: f"{{{name}}} is not a parameter of the route's path."})
    # With what a caller may put there: `.{id}` would become `.;`, which some upstreams read as a dot segment.
    if has_dot_segment(unquote(_PARAMETER.sub(";", path))):
        raise ValidationError({field: "Must not contain a dot segment, nor one that a parameter completes."})
