"""What a route's path, methods, handler and policies may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from gateway.policies import KNOWN, BadOption
from gateway.protocol import Protocol
from gateway.snapshot.endpoints import BUILTIN, BUILTINS, is_reserved
from gateway.wire.subjects import AddressError, Template
from routes.models import Route
from routes.upstreams import check_rewrite, check_url

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PROTOCOLS = ("http", "sse", "websocket", "mqtt")
HANDLER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "upstream": ("url", "rewrite"), "channel": ("channel",), "job": ("job_type",), BUILTIN: (),
}  # fmt: skip
OF_MQTT = ("api-key", "ip-restriction", "jwt", "rate-limit")
"""Policies that look at who connects, and at how often something comes: MQTT has no headers and no answers."""
PATH_MAX_CHARS = 1000
POLICIES_MAX = 50
JOB_TYPE_MAX_CHARS = 100
_SEGMENT = re.compile(r"[^{}\s\x00-\x1f\x7f?#%\\]+|\{[A-Za-z_][A-Za-z0-9_]*(?:\.\.\.)?\}")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\.\.\.)?\}")


def clean(route: Route) -> None:
    """Fill in what was left out. Raises ValidationError that names the field of the first fault."""
    if route.protocol not in PROTOCOLS:
        raise ValidationError({"protocol": f"Must be one of {', '.join(PROTOCOLS)}."})
    if not isinstance(route.reserved_override, bool):
        raise ValidationError({"reserved_override": "Must be true or false."})
    _check_path(route)
    route.methods = methods(route.methods, route.protocol)
    route.handler = handler(route.handler, route.protocol, parameters_of(route.path))
    _check_door(route)
    route.policies = policies(route.policies)
    _check_policies(route)


def check_free(route: Route) -> None:
    """Raise ValidationError where another route takes the same path, protocol and method.

    Two paths that differ in the names of their parameters alone are the same.
    """
    shape = _shape(route.path)
    for rival in Route.objects.exclude(pk=route.pk).only("name", "path", "protocol", "methods"):
        is_same_door = door(rival.protocol) == door(route.protocol)
        if is_same_door and set(rival.methods) & set(route.methods) and _shape(rival.path) == shape:
            raise ValidationError({"path": f"The route {rival.name} has this path and method already."})


def door(protocol: str) -> str:
    """Say where a protocol comes in: two that come in alike share their paths and methods."""
    return protocol if protocol in ("websocket", "mqtt") else "http"


def _check_door(route: Route) -> None:
    """Let a route be the gateway's own only where that has a door."""
    own = BUILTINS.get(Protocol(route.protocol))
    if route.handler["type"] == BUILTIN and route.path != own:
        doors = ", ".join(f"{path} ({protocol.value})" for protocol, path in BUILTINS.items())
        raise ValidationError({"path": f"The gateway's own doors are {doors}."})


def _check_policies(route: Route) -> None:
    for number, policy in enumerate(route.policies if route.protocol == "mqtt" else ()):
        if policy["type"] not in OF_MQTT:
            raise ValidationError({f"policies[{number}].type": f"Over MQTT there are {', '.join(OF_MQTT)}."})


def parameters_of(path: str) -> list[str]:
    """Give the names of a path's parameters, in their order."""
    return _PARAMETER.findall(path)


def _check_path(route: Route) -> None:
    path = route.path
    if not isinstance(path, str) or not path.startswith("/") or len(path) > PATH_MAX_CHARS:
        raise ValidationError({"path": f"Must begin with a slash, and have at most {PATH_MAX_CHARS} characters."})
    segments = path.split("/")[1:]
    inner = segments[:-1] if segments[-1] == "" else segments
    if any(not _SEGMENT.fullmatch(segment) or segment in (".", "..") for segment in inner):
        raise ValidationError({"path": "Segments are plain text, {parameter} or, last, {rest...}."})
    if any(segment.endswith("...}") for segment in segments[:-1]):
        raise ValidationError({"path": "{rest...} must be the last segment."})
    names = parameters_of(path)
    if len(names) != len(set(names)):
        raise ValidationError({"path": "A parameter is named twice."})
    if is_reserved(path) and not (route.reserved_override and not names):
        raise ValidationError({"path": "Lies under a reserved prefix; only an exact path with reserved_override may."})


def methods(named: Any, protocol: str) -> list[str]:
    """Give the methods in capitals; every protocol but HTTP is opened with GET where none is named."""
    if not isinstance(named, list | tuple) or not all(isinstance(method, str) for method in named):
        raise ValidationError({"methods": "A list of methods."})
    found = [method.upper() for method in named] or (["GET"] if protocol != "http" else list(METHODS))
    if unknown := [method for method in found if method not in METHODS]:
        raise ValidationError({"methods": f"{unknown[0]} is not one of {', '.join(METHODS)}."})
    if protocol in ("websocket", "mqtt") and set(found) != {"GET"}:
        raise ValidationError({"methods": "A WebSocket is opened with GET, and MQTT has no methods: leave them out."})
    return list(dict.fromkeys(found))


def handler(named: Any, protocol: str, parameters: list[str]) -> dict[str, Any]:
    """Give the handler. Raises ValidationError that names the field at fault."""
    if not isinstance(named, Mapping) or not isinstance(kind := named.get("type"), str) or kind not in HANDLER_FIELDS:
        raise ValidationError({"handler.type": f"Must be one of {', '.join(HANDLER_FIELDS)}."})
    if protocol == "mqtt" and kind != BUILTIN:
        raise ValidationError({"handler.type": f"What comes over MQTT is handled by {BUILTIN} alone."})
    found = {str(field): value for field, value in named.items() if value is not None}
    _check_fields(found, HANDLER_FIELDS[kind])
    if kind == "upstream":
        check_url(found["url"], protocol, parameters)
        check_rewrite(found.get("rewrite"), parameters)
    elif kind == "channel":
        _check_channel(found["channel"])
    elif kind == "job" and (protocol != "http" or len(found["job_type"]) > JOB_TYPE_MAX_CHARS):
        raise ValidationError({"handler.job_type": "A job is submitted over HTTP, and its type has a short name."})
    return found


def _check_fields(named: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    for field, value in named.items():
        if field not in ("type", *fields):
            raise ValidationError({f"handler.{field}": f"Unknown field; this handler has {', '.join(fields)}."})
        if not isinstance(value, str) or not value:
            raise ValidationError({f"handler.{field}": "Must be a text."})
    for field in fields:
        if field != "rewrite" and field not in named:
            raise ValidationError({f"handler.{field}": "Is required."})


def policies(named: Any) -> list[dict[str, Any]]:
    """Give the policies whole. Raises ValidationError that names the field at fault."""
    if not isinstance(named, list | tuple) or len(named) > POLICIES_MAX:
        raise ValidationError({"policies": f"A list of at most {POLICIES_MAX} policies."})
    return [_policy(policy, f"policies[{number}]") for number, policy in enumerate(named)]


def _policy(policy: Any, at: str) -> dict[str, Any]:
    if not isinstance(policy, Mapping) or not isinstance(policy.get("type"), str) or policy["type"] not in KNOWN:
        raise ValidationError({f"{at}.type": f"Must be one of {', '.join(sorted(KNOWN))}."})
    if unknown := [str(field) for field in policy if field not in ("type", "options", "mode")]:
        raise ValidationError({f"{at}.{unknown[0]}": "Unknown field; a policy has type, options and mode."})
    options = {} if policy.get("options") is None else policy["options"]
    mode = "enforce" if policy.get("mode") is None else policy["mode"]
    if mode not in ("enforce", "shadow"):
        raise ValidationError({f"{at}.mode": "Must be enforce or shadow."})
    if not isinstance(options, Mapping):
        raise ValidationError({f"{at}.options": "An object."})
    try:
        KNOWN[policy["type"]](options)
    except BadOption as error:
        raise ValidationError({f"{at}.options.{error.at}": str(error)}) from None
    except (TypeError, ValueError) as error:
        raise ValidationError({f"{at}.options": str(error)}) from None
    return {"type": policy["type"], "options": dict(options), "mode": mode}


def _check_channel(address: str) -> None:
    try:
        Template.parse(address)
    except AddressError as error:
        raise ValidationError({"handler.channel": f"{error}."}) from None


def _shape(path: str) -> str:
    return _PARAMETER.sub(lambda found: "{...}" if found[0].endswith("...}") else "{}", path)
