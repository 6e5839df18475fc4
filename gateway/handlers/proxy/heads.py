"""The heads of proxied messages: which headers pass to the upstream, and which come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus

from gateway.call import Call
from gateway.concurrency.short_cache import short_cache
from gateway.config import Config
from gateway.handlers.proxy import destination, max_forwards
from gateway.handlers.proxy.forwarding import Forwarding
from gateway.handlers.proxy.own_names import REWRITTEN, OwnNames
from gateway.refusals import Reason, Refused
from gateway.wire.header_fields import OVERRIDES, Headers, has_body, lines_of
from gateway.wire.via import has_passed

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"transfer-encoding", b"upgrade", b"expect", b"http2-settings",
    }
)  # fmt: skip
NOT_PASSED_BACK = HOP_BY_HOP | {b"date", b"service-worker-allowed"}
"""The gateway's server adds its own date; no upstream widens the scope of its worker to the paths of others."""
NO_TRAILERS = NOT_PASSED_BACK | {
    b"age", b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-location",
    b"content-range", b"content-security-policy", b"content-type", b"expires", b"host", b"location", b"max-forwards",
    b"pragma", b"range", b"retry-after", b"set-cookie", b"strict-transport-security", b"trailer", b"vary", b"via",
    b"www-authenticate",
}  # fmt: skip
"""Fields that frame, route, authenticate, cache or describe a message are no trailers (RFC 9110 6.5.1)."""
EXAMINED_BACK = NOT_PASSED_BACK | REWRITTEN
EXAMINED_OF_426 = EXAMINED_BACK - {b"upgrade"}
"""It says what to upgrade to (RFC 9110 15.5.22)."""
WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
ONLY_KEPT_OR_CLOSED = frozenset({frozenset({b"keep-alive"}), frozenset({b"close"})})
PRIVATE = (b"cache-control", b"private")
BY_KEY = (b"vary", b"Authorization, X-API-Key")
SET_BY_GATEWAY = frozenset(
    {
        b"host", b"authorization", b"x-api-key", b"content-length", b"forwarded", b"x-real-ip", b"x-client-ip",
        b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip", b"fastly-client-ip",
        b"x-original-forwarded-for", b"x-envoy-external-address",
    }
)  # fmt: skip
OVERRIDES_RAW = frozenset(name.encode() for name in OVERRIDES)
PASSED_IN_PART = OVERRIDES_RAW | {b"cookie", b"max-forwards", b"te", b"via"}
EXAMINED = HOP_BY_HOP | SET_BY_GATEWAY | PASSED_IN_PART | {b"proxy", b"trailer"}
"""The others pass to the upstream. CGI takes ``Proxy`` for the variable ``HTTP_PROXY``; a request's trailers are
dropped."""
OPERATORS_COOKIES = frozenset(
    prefix + name
    for prefix in (b"", b"__host-")
    for name in (b"sessionid", b"csrftoken", b"apimgmt_device", b"apimgmt_oidc")
)
"""Cookies of the operators' pages in lower case. Browsers share cookies between the ports of a host, so no upstream
receives or sets them."""
ACCEPTS_TRAILERS = ((b"te", b"trailers"), (b"connection", b"te"))
"""What a client that accepts trailers sends: ``TE`` is of the connection, so each hop names it (RFC 9110 10.1.4)."""
UNNAMED = b" \t="
"""What browsers drop before the name: ``=a=b`` is stored without a name, and sent back as ``a=b``."""
PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
"""The reason phrases that the gateway's server sends of itself."""
PREFIXES_OF_NO_TRAILERS = (b"access-control-", b"ratelimit", b"x-ratelimit-")
_PHRASE = re.compile(rb"[\t -~\x80-\xff]{1,200}")
IDENTITY_PREFIXES = (b"x-consumer-", b"x-forwarded-", b"x-apimgmt-")


def request_head(call: Call, forwarding: Forwarding, config: Config, via: bytes) -> bytes:
    """Return the head of a request to the upstream. Raises Refused ``upstream-unavailable`` and ``loop-detected``."""
    host = forwarding.host(call) if forwarding.route.preserve_host else forwarding.target.host
    lines = [forwarding.request_line(call), f"host: {host}\r\n".encode("latin-1")]
    passed = passed_on(call, via)
    if forwarding.has_credentials or call.origin is not None or call.method in destination.METHODS:
        passed = forwarding.request_headers(call, passed, config)
    elif call.added_headers:
        passed += call.added_headers
    lines.append(lines_of(passed))
    if has_body(call.headers):
        length = call.header(b"content-length")
        lines.append(
            f"content-length: {length}\r\n".encode() if length is not None else b"transfer-encoding: chunked\r\n"
        )
    elif call.method not in WITHOUT_BODY and call.header(b"content-length") is not None:
        # Servers wait for a length where the method has a body (RFC 9110 8.6).
        lines.append(b"content-length: 0\r\n")
    caller = call.caller
    lines.append(_end_of_head(caller.consumer, caller.key, caller.tier, forwarding.forwarded(call, config), via))
    return b"".join(lines)


def passed_on(call: Call, via: bytes) -> Headers:
    """Return the headers of a request that pass to the upstream. Raises Refused ``loop-detected``.

    A name with other characters than letters, digits and hyphens does not pass: some servers take it for another one.
    Neither does a value that holds the caller's credential, which is the gateway's alone to know.
    """
    named: frozenset[bytes] = frozenset()
    passed: Headers = []
    secret = b"" if call.credential is None else call.credential.value.encode()
    for header in call.headers:
        name = header[0]
        if name not in EXAMINED:
            if not is_identity(name) and is_plain_name(name) and not (secret and secret in header[1]):
                passed.append(header)
        elif name == b"connection":
            named |= _tokens(header[1])
        elif name in PASSED_IN_PART:
            passed += _passed_in_part(call, header, via, secret)
    if not named or named in ONLY_KEPT_OR_CLOSED:
        return passed
    # What the client names in Connection concerns its own one only (RFC 9110 7.6.1).
    return [header for header in passed if header[0] not in named or header in ACCEPTS_TRAILERS]


def is_identity(name: bytes) -> bool:
    """Return whether a header of this name says who calls, which the gateway alone may say."""
    return name.startswith(IDENTITY_PREFIXES)


def is_plain_name(name: bytes) -> bool:
    """Return whether a name has only letters, digits and hyphens: some servers take others for another name."""
    return name.replace(b"-", b"").isalnum()


def _passed_in_part(
    call: Call, header: tuple[bytes, bytes], via: bytes, secret: bytes
) -> Iterable[tuple[bytes, bytes]]:
    name, value = header
    if name == b"via" and has_passed(via, value):
        raise Refused(Reason.LOOP_DETECTED)
    if name == b"te":
        return ACCEPTS_TRAILERS if b"trailers" in _tokens(value) else ()
    if name == b"cookie":
        cookies = cookies_of(value)
        if secret and secret in cookies:
            cookies = b"; ".join(cookie.strip() for cookie in cookies.split(b";") if secret not in cookie)
        return ((name, cookies),) if cookies else ()
    if secret and secret in value:
        return ()
    if name == b"via":
        return (header,)
    if name == max_forwards.NAME:
        return ((name, max_forwards.decremented(value)),) if call.method == max_forwards.METHOD else (header,)
    return (header,) if _asks_for(call, name) else ()


def _asks_for(call: Call, override: bytes) -> bool:
    """Return whether the route wants a header that its upstream obeys instead of the request line.

    A preflight has no credential, so it must not become another request.
    """
    if call.is_anonymous:
        return False
    return call.route is not None and override.decode() in call.route.handler.get("override_headers", ())


def cookies_of(value: bytes) -> bytes:
    """Return the cookies without those of the operators' pages."""
    lowered = value.lower()
    if b"sessionid" not in lowered and b"csrftoken" not in lowered and b"apimgmt_" not in lowered:
        return value
    return b"; ".join(cookie.strip() for cookie in value.split(b";") if not is_operators_cookie(cookie))


def is_operators_cookie(cookie: bytes) -> bool:
    """Return whether a cookie, or the value of ``Set-Cookie``, has a name of the operators' pages for any browser."""
    pair = cookie.partition(b";")[0].lstrip(UNNAMED)
    return pair.partition(b"=")[0].strip(b" \t").lower() in OPERATORS_COOKIES


@lru_cache(maxsize=4096)
def _end_of_head(consumer: str, key: str, tier: str, forwarded: bytes, via: bytes) -> bytes:
    """Return the headers that name the caller to the upstream, which callers themselves cannot send, and the end."""
    identity = f"x-consumer-name: {consumer}\r\nx-consumer-key: {key}\r\nx-consumer-tier: {tier}\r\n"
    return b"%b%bvia: %b\r\n\r\n" % (identity.encode("latin-1", "replace") if consumer else b"", forwarded, via)


def response_headers(
    status: int,
    headers: Headers,
    *,
    limits: Headers,
    via: bytes,
    own_names: Callable[[], OwnNames | None] | None = None,
) -> Headers:
    """Return the upstream's response headers without those of its connection, with the caller's limits added.

    Those that name the upstream are rewritten with the names that ``own_names`` returns: it is called for them only.
    """
    named: frozenset[bytes] = frozenset()
    kept: Headers = []
    is_cached_by_rule = names_upstream = False
    examined = EXAMINED_BACK if status != 426 else EXAMINED_OF_426
    for header in headers:
        name = header[0]
        if name not in examined:
            kept.append(header)
            if name == b"cache-control":
                is_cached_by_rule = True
        elif name in REWRITTEN:
            names_upstream = True
            kept += (header,) if name != b"set-cookie" or not is_operators_cookie(header[1]) else ()
        elif name == b"connection":
            named |= _tokens(header[1])
    if named and named not in ONLY_KEPT_OR_CLOSED:
        kept = [header for header in kept if header[0] not in named or header[0] == b"upgrade"]
    if names_upstream and own_names is not None and (names := own_names()) is not None:
        kept = names.rewritten(kept)
    # A shared cache must not serve one key's response to another.
    kept += (BY_KEY if is_cached_by_rule else PRIVATE, (b"via", via), *limits)
    return kept


def interim_headers(headers: Headers, own_names: OwnNames | None) -> Headers:
    """Return the headers of an interim response to pass back, with the caller's names as in the final one."""
    named = _named_in_connection(headers) | NOT_PASSED_BACK | {b"content-length"}
    kept = [
        header
        for header in headers
        if header[0] not in named and not (header[0] == b"set-cookie" and is_operators_cookie(header[1]))
    ]
    return kept if own_names is None else own_names.rewritten(kept)


def passed_trailers(trailers: Headers) -> Headers:
    """Return the trailers to pass back: a recipient that merges them into the head must come to no harm."""
    return [
        trailer
        for trailer in trailers
        if trailer[0] not in NO_TRAILERS and not trailer[0].startswith(PREFIXES_OF_NO_TRAILERS)
    ]


def is_phrase(text: bytes) -> bool:
    """Return whether an upstream's reason phrase can be passed back (RFC 9112 4)."""
    return _PHRASE.fullmatch(text) is not None


def _named_in_connection(headers: Headers) -> frozenset[bytes]:
    """Return the names of the headers that concern this connection only (RFC 9110 7.6.1)."""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            named = named | _tokens(value) if named else _tokens(value)
    return named


@short_cache(256)
def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))
