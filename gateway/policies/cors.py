"""``cors``: which pages of other origins may read the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.call import Call
from gateway.policies.options import BadOption, allow_only, flag, strings, whole_number
from gateway.policies.policy import Build, Policy
from gateway.snapshot.methods import ANY
from gateway.wire.header_fields import NAME, Headers

MAX_AGE_DEFAULT_S = 600
MAX_AGE_MAX_S = 86_400
"""Browsers keep the answer to a preflight no longer than this."""
EXPOSED_MAX = 100

ANY_ORIGIN: Headers = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
"""Sent with or without an ``Origin``: an answer that a cache keeps without them could be read by no page afterwards
(Fetch, "CORS protocol and HTTP caches"), and one that is always the same needs no ``Vary``."""
PREFLIGHT: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"Authorization, X-API-Key, Content-Type, Last-Event-ID, Idempotency-Key, *"),
    (b"access-control-max-age", b"600"),
]

_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s\x00-\x1f\x7f-\U0010ffff]+", re.ASCII)
"""As browsers send it: scheme, host and port, without a path."""
_OPTIONS = ("allowed_origins", "allow_credentials", "exposed_headers", "max_age_s")
_VARY_OF_PREFLIGHTS = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_ANY_ORIGIN = _ANY_NAME = "*"
_CREDENTIALS = (b"access-control-allow-credentials", b"true")


@dataclass(frozen=True, slots=True)
class CorsOptions:
    """The options of the policy, read once."""

    origins: frozenset[str]
    allows_credentials: bool
    exposed: bytes
    """The value of ``Access-Control-Expose-Headers``; empty where every header of the answer is exposed."""
    max_age_s: int


def cors(options: Mapping[str, Any]) -> Build:
    """Read the options. Raises BadOption, also for credentials from any origin, which would undo same-origin rules."""
    allow_only(options, _OPTIONS)
    origins = strings(options, "allowed_origins")
    for number, origin in enumerate(origins):
        if not _ORIGIN.fullmatch(origin):
            raise BadOption(f"allowed_origins[{number}]", "Must be an origin, such as https://app.example, or *.")
    allows_credentials = flag(options, "allow_credentials")
    if allows_credentials and _ANY_ORIGIN in origins:
        raise BadOption("allow_credentials", "List the origins that may send credentials; * is not one.")
    max_age_s = whole_number(options, "max_age_s", MAX_AGE_DEFAULT_S, most=MAX_AGE_MAX_S)
    read = CorsOptions(frozenset(origins), allows_credentials, _exposed(options), max_age_s)
    return lambda _: Cors(read)


def _exposed(options: Mapping[str, Any]) -> bytes:
    """Return the headers that pages may read, as one value. Raises BadOption."""
    names = strings(options, "exposed_headers")
    if len(names) > EXPOSED_MAX:
        raise BadOption("exposed_headers", f"Must have at most {EXPOSED_MAX} names.")
    if _ANY_NAME in names:
        return b""
    for number, name in enumerate(names):
        if not NAME.fullmatch(name):
            raise BadOption(f"exposed_headers[{number}]", "Not a valid header name.")
    return ", ".join(names).encode()


class OwnCors(Policy):
    """CORS of the gateway's own endpoints: every page may read them, as no credential of theirs comes by itself."""

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Let the page of any origin read the answer."""
        return [*headers, *ANY_ORIGIN]

    def preflight(self, call: Call) -> Headers:
        """Return the headers that answer a preflight."""
        return PREFLIGHT


class Cors(Policy):
    """Adds CORS headers to answers, and answers preflights."""

    def __init__(self, options: CorsOptions) -> None:
        self._options = options

    def outbound(self, call: Call, status: int, headers: Headers) -> Headers:
        """Replace the CORS headers of the upstream by those for the caller's origin.

        An answer always varies by ``Origin``: a cache must not serve one without CORS headers to a page (Fetch, "CORS
        protocol and HTTP caches").
        """
        kept = [header for header in headers if not header[0].startswith(b"access-control-") and header[0] != b"vary"]
        kept.append((b"vary", varied_by_origin(headers)))
        allowed = self._allowed(call)
        if allowed:
            allowed.append((b"access-control-expose-headers", self._options.exposed or self._all(kept)))
        return kept + allowed

    def preflight(self, call: Call) -> Headers:
        """Return the headers that answer a preflight; only ``Vary`` where the origin is not allowed."""
        allowed = self._allowed(call)
        if allowed:
            request_headers = call.header(b"access-control-request-headers") or "Authorization, Content-Type"
            allowed += [
                (b"access-control-allow-methods", _methods(call).encode("latin-1")),
                (b"access-control-allow-headers", request_headers.encode("latin-1")),
                (b"access-control-max-age", b"%d" % self._options.max_age_s),
            ]
        return [*allowed, _VARY_OF_PREFLIGHTS]

    def _allowed(self, call: Call) -> Headers:
        """Return the headers that allow the caller's origin, none where it is not allowed."""
        origins = self._options.origins
        if call.origin is None or not (_ANY_ORIGIN in origins or call.origin in origins):
            return []
        allowed = [(b"access-control-allow-origin", call.origin.encode("latin-1"))]
        return [*allowed, _CREDENTIALS] if self._options.allows_credentials else allowed

    def _all(self, headers: Headers) -> bytes:
        """Return the value that exposes every header: a page that cannot read ``Retry-After`` cannot comply with it.

        With credentials ``*`` would be a name like any other, so the names are listed.
        """
        if not self._options.allows_credentials:
            return b"*"
        return b", ".join(dict.fromkeys(name for name, _ in headers if name != b"set-cookie"))


def _methods(call: Call) -> str:
    """Return the methods of the route; where it takes any, the one that the preflight announces."""
    methods = call.route.methods if call.route is not None else ()
    if methods and ANY not in methods:
        return ", ".join(methods)
    return call.header(b"access-control-request-method") or ""


def varied_by_origin(headers: Headers) -> bytes:
    """Return the value of one ``Vary`` that has what these headers vary by, each once, and ``Origin``."""
    fields = [field.strip() for name, value in headers if name == b"vary" for field in value.split(b",")]
    if b"*" in fields:
        return b"*"
    merged: dict[bytes, bytes] = {}
    for field in fields:
        if field and field.lower() != b"origin":
            merged.setdefault(field.lower(), field)
    return b", ".join((*merged.values(), b"Origin"))
