"""What an upstream's URL may be: absolute, without credentials, and never an address where clouds keep theirs."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from gateway.upstream.outbound import is_forbidden

SCHEMES = {"http": ("http", "https"), "sse": ("http", "https"), "websocket": ("ws", "wss", "http", "https")}
URL_MAX_CHARS = 2000
_PLAIN = re.compile(r"[!-~]+")
_PARAMETER = re.compile(r"\{([^{}]*)\}")


def check_url(url: str, protocol: str, parameters: list[str]) -> None:
    """Raise ValidationError for a URL that cannot be called, or must not be."""
    if len(url) > URL_MAX_CHARS or not _PLAIN.fullmatch(url):
        raise ValidationError({"handler.url": "Printable ASCII without spaces; percent-encode the rest."})
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValidationError({"handler.url": "Is no URL."}) from None
    if parts.scheme not in SCHEMES[protocol] or not parts.hostname or port == 0 or "{" in parts.netloc:
        raise ValidationError({"handler.url": f"An absolute URL that begins with {' or '.join(SCHEMES[protocol])}://."})
    if "@" in parts.netloc:
        raise ValidationError({"handler.url": "Must hold no credentials; use the policy set-headers."})
    if parts.fragment or "{" in parts.query:
        raise ValidationError({"handler.url": "Has no fragment, and parameters in its path alone."})
    if is_forbidden(parts.hostname, settings.OUTBOUND_ALLOWED_NETWORKS):
        raise ValidationError({"handler.url": "Is a link-local address; OUTBOUND_ALLOWED_NETWORKS may allow it."})
    _check_parameters("handler.url", parts.path, parameters)


def check_rewrite(rewrite: str | None, parameters: list[str]) -> None:
    """Raise ValidationError for a path that cannot take the place of the URL's."""
    if rewrite is None:
        return
    if len(rewrite) > URL_MAX_CHARS or not _PLAIN.fullmatch(rewrite) or not rewrite.startswith("/"):
        raise ValidationError({"handler.rewrite": "A path: begins with a slash, printable ASCII without spaces."})
    if "?" in rewrite or "#" in rewrite:
        raise ValidationError({"handler.rewrite": "A path alone; queries of caller and URL are kept."})
    _check_parameters("handler.rewrite", rewrite, parameters)


def _check_parameters(field: str, path: str, parameters: list[str]) -> None:
    for name in _PARAMETER.findall(path):
        if name.removesuffix("...") not in parameters:
            raise ValidationError({field: f"{{{name}}} is not in the route's path."})
