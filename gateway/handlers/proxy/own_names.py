"""Rewrites what the head of a response says of the upstream: the caller knows the gateway's names alone.

Rewritten are URLs in ``Location``, ``Content-Location``, ``Refresh`` and ``Link``, and the domain and path of cookies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.handlers.proxy.path_map import is_under, to_public
from gateway.upstream.origin import Origin
from gateway.wire.forwarded import PublicName
from gateway.wire.header_fields import Headers

NAMING = frozenset({b"location", b"content-location", b"refresh", b"link"})
"""Headers with URLs that a client follows."""
REWRITTEN = NAMING | {b"set-cookie"}
_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//([^/?#\\]*)([^?#]*)(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:[^@]*@)?(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_REFRESH = re.compile(r"(\s*[0-9.]*\s*[;,]\s*(?:url\s*=\s*)?['\"]?)([^'\"]*)(.*)", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r"<([^<>]*)>")
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
SOCKET_SCHEMES = frozenset({"ws", "wss"})
HOST_ONLY = "__host-"
"""A cookie with this prefix must have the path ``/`` (RFC 6265bis 4.1.3.2)."""


@dataclass(frozen=True, slots=True)
class OwnNames:
    """The names of one call's route and upstream."""

    origin: Origin
    host: str
    """The ``Host`` that was sent to the upstream."""
    public: PublicName
    upstream_prefix: str

    def rewritten(self, headers: Headers) -> Headers:
        """Return the headers of a response with the caller's names."""
        return [(name, self._value(name, value)) if name in REWRITTEN else (name, value) for name, value in headers]

    def _value(self, name: bytes, value: bytes) -> bytes:
        text = value.decode("latin-1")
        if name == b"set-cookie":
            text = self._cookie(text)
        elif name == b"link":
            text = _LINK.sub(lambda found: f"<{self.url(found[1])}>", text)
        elif name == b"refresh":
            text = _REFRESH.sub(lambda found: found[1] + self.url(found[2]) + found[3], text, count=1)
        else:
            text = self.url(text)
        return text.encode("latin-1")

    def url(self, url: str) -> str:
        """Return a URL with the caller's names if it names the upstream, or is a path of it; otherwise as it is."""
        if url.startswith("/") and not url.startswith(("//", "/\\")):
            end = min((at for at in (url.find("?"), url.find("#")) if at >= 0), default=len(url))
            return self._path(url[:end]) + url[end:]
        match = _URL.fullmatch(url)
        if match is None or not self.is_upstream(match[1] or "", match[2]):
            return url
        origin = self.public.origin
        if origin and (match[1] or "").lower() in SOCKET_SCHEMES:
            # A client that follows the redirect of a handshake goes on with a handshake.
            origin = "ws" + origin.removeprefix("http")
        return origin + (self._path(match[3] or "/") if match[3] or self.public.prefix else "") + match[4]

    def _path(self, path: str) -> str:
        return to_public(path, self.public.prefix, self.upstream_prefix)

    def is_upstream(self, scheme: str, authority: str) -> bool:
        """Return whether an authority is the upstream's: its host, with its port or none; or the ``Host`` sent."""
        match = _AUTHORITY.fullmatch(authority)
        scheme = scheme.lower()
        if match is None or (scheme and scheme not in DEFAULT_PORTS):
            return False
        if authority.lower() == self.host.lower():
            return True
        is_host = match[1].strip("[]").lower().removesuffix(".") == self.origin.host.lower().removesuffix(".")
        return is_host and (not match[2] or int(match[2]) in (self.origin.port, DEFAULT_PORTS.get(scheme)))

    def _cookie(self, cookie: str) -> str:
        pair, *attributes = cookie.split(";")
        keeps_path = pair.strip().lower().startswith(HOST_ONLY)
        kept = [pair]
        for attribute in attributes:
            name, equals, value = attribute.partition("=")
            kind = name.strip().lower()
            if kind == "domain" and self._is_upstreams_domain(value):
                # Without a domain, the cookie is the gateway's alone; with it, also that of its subdomains.
                continue
            if kind == "path" and equals and not keeps_path:
                attribute = f"{name}={self._cookie_path(value.strip())}"  # noqa: PLW2901 - the same one, rewritten
            kept.append(attribute)
        return ";".join(kept)

    def _is_upstreams_domain(self, domain: str) -> bool:
        """Return whether a cookie's domain includes the upstream and not the gateway."""
        name = domain.strip().strip('"').removeprefix(".").lower()
        host = self.public.host.lower()
        host = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        return bool(name) and _includes(name, self.origin.host.lower()) and not _includes(name, host)

    def _cookie_path(self, path: str) -> str:
        """Return where the caller sends a cookie that the upstream wants at a path, or everywhere."""
        upstream, public = self.upstream_prefix, self.public.prefix
        if upstream != public and upstream and is_under(upstream, path.rstrip("/")):
            return public or "/"
        mapped = self._path(path)
        return mapped.rstrip("/") or "/" if path == "/" else mapped


def _includes(domain: str, host: str) -> bool:
    """Return whether a host is a domain or one of its subdomains (RFC 6265 5.1.3)."""
    return host == domain or host.endswith(f".{domain}")
