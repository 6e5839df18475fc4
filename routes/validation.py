"""Validate the path, methods, handler and policies of routes, and fill in defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError

from gateway.policies import KNOWN, BadOption
from gateway.protocol import Protocol
from gateway.snapshot.endpoints import BUILTIN, BUILTINS, is_own, is_reserved
from gateway.snapshot.methods import NOT_IMPLEMENTED, overlap
from gateway.snapshot.segments import MixedSegment
from gateway.wire.header_fields import NAME
from gateway.wire.subjects import AddressError, Template
from routes.forwarding import clean_forwarding
from routes.models import Route
from routes.upstreams import check_rewrite, check_url, clean_override_headers

OVERRIDE_HEADERS = "override_headers"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods of an HTTP route that names none. A name in lower case means one of these."""
METHODS_MAX, METHOD_MAX_CHARS = 50, 64
PROTOCOLS = ("http", "sse", "websocket", "mqtt")
HANDLER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "upstream": ("url", "rewrite", OVERRIDE_HEADERS), "channel": ("channel",), "job": ("job_type",),
    "placeholder": ("name",), BUILTIN: (),
}  # fmt: skip
OPTIONAL_FIELDS = frozenset({"rewrite", OVERRIDE_HEADERS})
MQTT_POLICIES = ("api-key", "ip-restriction", "jwt", "rate-limit")
"""The policies that need neither headers nor responses, which MQTT lacks."""
PATH_MAX_CHARS = 1000
POLICIES_MAX = 50
JOB_TYPE_MAX_CHARS = 100
_SEGMENT = re.compile(r"[^{}\s\x00-\x1f\x7f?#%\\]+|\{[A-Za-z_][A-Za-z0-9_]*(?:\.\.\.)?\}")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\.\.\.)?\}")


def clean_route(route: Route) -> None:
    """Validate a route and fill in its defaults. Raises ValidationError for the first invalid field."""
    if route.protocol not in PROTOCOLS:
        raise ValidationError({"protocol": f"Must be one of {', '.join(PROTOCOLS)}."})
    _check_path(route)
    route.shape = shape_of(route.path)
    route.methods = clean_methods(route.methods, route.protocol)
    route.handler = clean_handler(route.handler, route.protocol, parameters_of(route.path))
    _check_builtin(route)
    route.policies = clean_policies(route.policies)
    _check_policies(route)
    clean_forwarding(route)


def check_free(route: Route, rivals: Iterable[Route]) -> None:
    """Raise ValidationError if one of a route's rivals is another route: it has the same transport, path and method.

    Paths that differ only in the names of their parameters are the same.
    """
    for rival in rivals:
        if rival.pk != route.pk or rival.name != route.name:
            raise ValidationError({"path": f"The route {rival.name} already has this path and method."})


def rivals_of(route: Route) -> list[Route]:
    """Return the routes that take a call that this route would take, itself included."""
    return [rival for rival in Route.objects.filter(shape=shape_of(route.path)) if are_rivals(rival, route)]


def are_rivals(route: Route, other: Route) -> bool:
    """Return whether some call matches the transport and the method of two routes, whose paths have one shape."""
    return transport_of(route.protocol) == transport_of(other.protocol) and overlap(route.methods, other.methods)


def transport_of(protocol: str) -> str:
    """Return the transport of a protocol; routes of one transport share its paths and methods."""
    return protocol if protocol in ("websocket", "mqtt") else "http"


def _check_builtin(route: Route) -> None:
    """Raise ValidationError for a built-in handler on another path than the one of its protocol."""
    builtin_path = BUILTINS.get(Protocol(route.protocol))
    if route.handler["type"] == BUILTIN and route.path != builtin_path:
        paths = ", ".join(f"{path} ({protocol.value})" for protocol, path in BUILTINS.items())
        raise ValidationError({"path": f"The paths of built-in handlers are {paths}."})


def _check_policies(route: Route) -> None:
    for number, policy in enumerate(route.policies if route.protocol == "mqtt" else ()):
        if policy["type"] not in MQTT_POLICIES:
            raise ValidationError(
                {f"policies[{number}].type": f"An MQTT route can only have the policies {', '.join(MQTT_POLICIES)}."}
            )


def parameters_of(path: str) -> list[str]:
    """Return the names of the parameters of a path, in order."""
    return _PARAMETER.findall(path)


def _check_path(route: Route) -> None:
    path = route.path
    if not isinstance(path, str) or not path.startswith("/") or len(path) > PATH_MAX_CHARS:
        raise ValidationError({"path": f"Must begin with a slash and have at most {PATH_MAX_CHARS} characters."})
    segments = path.split("/")[1:]
    inner = segments[:-1] if segments[-1] == "" else segments
    if not all(map(_is_segment, inner)):
        raise ValidationError(
            {"path": "Each segment must be plain text, {parameters} with or without text between them, or {rest...}."}
        )
    if any(segment.endswith("...}") for segment in segments[:-1]):
        raise ValidationError({"path": "{rest...} must be the last segment."})
    names = parameters_of(path)
    if len(names) != len(set(names)):
        raise ValidationError({"path": "Two parameters have the same name."})
    if is_reserved(path) and not route.reserved_override:
        raise ValidationError({"path": "Is under a reserved prefix; this needs reserved_override."})
    if is_reserved(path) and names and is_own(path):
        raise ValidationError({"path": "Has parameters, and also matches an address of the gateway's own."})


def _is_segment(segment: str) -> bool:
    if _SEGMENT.fullmatch(segment):
        return segment not in (".", "..")
    mixed = MixedSegment.parse(segment)
    return mixed is not None and all(not text or _SEGMENT.fullmatch(text) for text in mixed.texts)


def clean_methods(names: Any, protocol: str) -> list[str]:
    """Return the methods; the default is ``METHODS`` for HTTP, and GET for the other protocols.

    Any token is a method, and its case matters (RFC 9110 9.1); ``*`` stands for all. Raises ValidationError.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(method, str) for method in names):
        raise ValidationError({"methods": "Must be a list of methods."})
    cleaned = [method.upper() if method.upper() in METHODS else method for method in names]
    cleaned = cleaned or (["GET"] if protocol != "http" else list(METHODS))
    if len(cleaned) > METHODS_MAX:
        raise ValidationError({"methods": f"At most {METHODS_MAX} methods."})
    for method in cleaned:
        if not NAME.fullmatch(method) or len(method) > METHOD_MAX_CHARS:
            raise ValidationError({"methods": f"{method[:METHOD_MAX_CHARS]!r} is not a method."})
        if method in NOT_IMPLEMENTED:
            raise ValidationError({"methods": f"The gateway does not serve {method}."})
    if protocol in ("websocket", "mqtt") and set(cleaned) != {"GET"}:
        raise ValidationError({"methods": "Leave the methods out: a WebSocket is opened with GET, and MQTT has none."})
    return list(dict.fromkeys(cleaned))


def clean_handler(value: Any, protocol: str, parameters: list[str]) -> dict[str, Any]:
    """Return a copy of the handler without empty fields. Raises ValidationError for the first invalid field."""
    if not isinstance(value, Mapping) or not isinstance(kind := value.get("type"), str) or kind not in HANDLER_FIELDS:
        raise ValidationError({"handler.type": f"Must be one of {', '.join(HANDLER_FIELDS)}."})
    if protocol == "mqtt" and kind != BUILTIN:
        raise ValidationError({"handler.type": f"The handler of an MQTT route must be {BUILTIN}."})
    cleaned = {str(field): member for field, member in value.items() if member is not None}
    _check_fields(cleaned, HANDLER_FIELDS[kind])
    if kind == "upstream":
        check_url(cleaned["url"], protocol, parameters)
        check_rewrite(cleaned.get("rewrite"), parameters)
        if overrides := clean_override_headers(cleaned.pop(OVERRIDE_HEADERS, [])):
            cleaned[OVERRIDE_HEADERS] = overrides
    elif kind == "channel":
        _check_channel(cleaned["channel"])
    elif kind == "job" and (protocol != "http" or len(cleaned["job_type"]) > JOB_TYPE_MAX_CHARS):
        raise ValidationError(
            {"handler.job_type": f"Needs the protocol http, and has at most {JOB_TYPE_MAX_CHARS} characters."}
        )
    return cleaned


def _check_fields(handler: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    for field, member in handler.items():
        if field not in ("type", *fields):
            raise ValidationError(
                {f"handler.{field}": f"Unknown field; the fields of this handler are {', '.join(('type', *fields))}."}
            )
        if field != OVERRIDE_HEADERS and (not isinstance(member, str) or not member):
            raise ValidationError({f"handler.{field}": "Must be a string that is not empty."})
    for field in fields:
        if field not in OPTIONAL_FIELDS and field not in handler:
            raise ValidationError({f"handler.{field}": "Is required."})


def clean_policies(value: Any) -> list[dict[str, Any]]:
    """Return the policies with their defaults. Raises ValidationError for the first invalid field."""
    if not isinstance(value, list | tuple) or len(value) > POLICIES_MAX:
        raise ValidationError({"policies": f"Must be a list of at most {POLICIES_MAX} policies."})
    return [_policy(policy, f"policies[{number}]") for number, policy in enumerate(value)]


def _policy(policy: Any, at: str) -> dict[str, Any]:
    if not isinstance(policy, Mapping) or not isinstance(policy.get("type"), str) or policy["type"] not in KNOWN:
        raise ValidationError({f"{at}.type": f"Must be one of {', '.join(sorted(KNOWN))}."})
    if unknown := [str(field) for field in policy if field not in ("type", "options", "mode")]:
        raise ValidationError(
            {f"{at}.{unknown[0]}": "Unknown field; the fields of a policy are type, options and mode."}
        )
    options = {} if policy.get("options") is None else policy["options"]
    mode = "enforce" if policy.get("mode") is None else policy["mode"]
    if mode not in ("enforce", "shadow"):
        raise ValidationError({f"{at}.mode": "Must be enforce or shadow."})
    if not isinstance(options, Mapping):
        raise ValidationError({f"{at}.options": "Must be an object."})
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


def shape_of(path: str) -> str:
    """Return a path without the names of its parameters."""
    return _PARAMETER.sub(lambda found: "{...}" if found[0].endswith("...}") else "{}", path)
