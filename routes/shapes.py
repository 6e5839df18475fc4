"""What a route's path, methods, handler and policies may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from gateway.endpoints import is_reserved
from gateway.policies import KNOWN
from routes.models import Route

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SCHEMES = {"http": ("http", "https"), "sse": ("http", "https"), "websocket": ("ws", "wss", "http", "https")}
HANDLER_FIELDS = {"upstream": {"url", "rewrite"}, "channel": {"channel"}, "job": {"job_type"}}
_SEGMENT = re.compile(r"[^{}\s\x00-\x1f?#%]*|\{[A-Za-z_][A-Za-z0-9_]*(?:\.\.\.)?\}")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\.\.\.)?\}")


def check_path(route: Route) -> None:
    """Raise ValidationError for a path that cannot be served, or that is taken."""
    path = route.path
    if not path.startswith("/"):
        raise ValidationError({"path": "Must begin with a slash."})
    segments = path.split("/")
    if any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in segments):
        raise ValidationError({"path": "Segments are plain text, {parameter} or, last, {rest...}."})
    if any(segment.endswith("...}") for segment in segments[:-1]):
        raise ValidationError({"path": "{rest...} must be the last segment."})
    names = _PARAMETER.findall(path)
    if len(names) != len(set(names)):
        raise ValidationError({"path": "A parameter is named twice."})
    if is_reserved(path) and not (route.reserved_override and "{" not in path):
        raise ValidationError({"path": "Lies under a reserved prefix; only an exact path with reserved_override may."})
    _check_free(route)
    for name in _PARAMETER.findall(str(route.handler.get("url", ""))):
        if name not in names:
            raise ValidationError({"handler.url": f"{{{name}}} is not in the path."})


def methods(named: Any, protocol: str) -> list[str]:
    """Give the methods in capitals; every protocol but HTTP is opened with GET."""
    if not isinstance(named, list) or not all(isinstance(method, str) for method in named):
        raise ValidationError({"methods": "A list of methods."})
    found = [method.upper() for method in named] or (["GET"] if protocol != "http" else list(METHODS))
    if unknown := [method for method in found if method not in METHODS]:
        raise ValidationError({"methods": f"{unknown[0]} is not one of {', '.join(METHODS)}."})
    if protocol == "websocket" and found != ["GET"]:
        raise ValidationError({"methods": "A WebSocket is opened with GET."})
    return list(dict.fromkeys(found))


def handler(named: Any, protocol: str) -> dict[str, Any]:
    """Give the handler. Raises ValidationError that names the field at fault."""
    if protocol not in SCHEMES:
        raise ValidationError({"protocol": f"Must be one of {', '.join(SCHEMES)}."})
    if not isinstance(named, Mapping) or named.get("type") not in HANDLER_FIELDS:
        raise ValidationError({"handler.type": f"Must be one of {', '.join(HANDLER_FIELDS)}."})
    fields = HANDLER_FIELDS[named["type"]]
    if unknown := set(named) - fields - {"type"}:
        raise ValidationError(
            {f"handler.{min(unknown)}": f"Unknown field; this handler has {', '.join(sorted(fields))}."}
        )
    for field in fields - {"rewrite"}:
        if not isinstance(named.get(field), str) or not named[field]:
            raise ValidationError({f"handler.{field}": "Is required."})
    if named["type"] == "upstream":
        _check_url(named["url"], protocol)
    if named["type"] == "job" and protocol != "http":
        raise ValidationError({"protocol": "A job is submitted over HTTP."})
    return dict(named)


def policies(named: Any) -> list[dict[str, Any]]:
    """Give the policies whole. Raises ValidationError that names the field at fault."""
    if not isinstance(named, list):
        raise ValidationError({"policies": "A list of policies."})
    return [_policy(policy, f"policies[{number}]") for number, policy in enumerate(named)]


def _policy(policy: Any, at: str) -> dict[str, Any]:
    if not isinstance(policy, Mapping) or policy.get("type") not in KNOWN:
        raise ValidationError({f"{at}.type": f"Must be one of {', '.join(sorted(KNOWN))}."})
    if unknown := set(policy) - {"type", "options", "mode"}:
        raise ValidationError({f"{at}.{min(unknown)}": "Unknown field; a policy has type, options and mode."})
    options = policy.get("options") or {}
    mode = policy.get("mode") or "enforce"
    if mode not in ("enforce", "shadow"):
        raise ValidationError({f"{at}.mode": "Must be enforce or shadow."})
    if not isinstance(options, Mapping):
        raise ValidationError({f"{at}.options": "An object."})
    try:
        KNOWN[policy["type"]](options)
    except ValueError as error:
        raise ValidationError({f"{at}.options": str(error)}) from None
    return {"type": policy["type"], "options": dict(options), "mode": mode}


def _check_url(url: str, protocol: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES[protocol] or not parts.hostname or "{" in parts.netloc:
        raise ValidationError({"handler.url": f"An absolute URL that begins with {' or '.join(SCHEMES[protocol])}://."})
    if parts.username or parts.password:
        raise ValidationError({"handler.url": "Must hold no credentials; use the policy set-headers."})


def _check_free(route: Route) -> None:
    rivals = Route.objects.exclude(pk=route.pk).filter(path=route.path)
    for rival in rivals:
        same_door = (rival.protocol == "websocket") == (route.protocol == "websocket")
        if same_door and set(rival.methods) & set(route.methods):
            raise ValidationError({"path": f"The route {rival.name} has this path and method already."})
