"""Where a route's calls go: origin, Host and path at the upstream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.call import Call
from gateway.snapshot.paths import encoded
from gateway.upstream.connection import Origin

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\.\.\.)?\}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the calls of a route go, parsed once from its handler."""

    origin: Origin
    host: str
    pieces: tuple[tuple[str, str], ...]
    """The text of the path in pieces, each with the name of the parameter that follows it; "" after the last."""
    query: str

    def path_for(self, call: Call) -> str:
        """Return the request target for a call."""
        path = "".join([text + encoded(call.parameters[name]) if name else text for text, name in self.pieces])
        if not call.query and not self.query:
            return path
        own = call.query.decode("latin-1")
        return f"{path}?{self.query}&{own}" if self.query and own else f"{path}?{self.query}{own}"


def target_of(call: Call) -> Target:
    """Return where the call's route goes."""
    assert call.route is not None, "upstreams are reached by routes"
    handler = call.route.handler
    return _parse(handler["url"], handler.get("rewrite") or "")


@lru_cache(maxsize=4096)
def _parse(url: str, rewrite: str) -> Target:
    parts = urlsplit(url)
    split = _PARAMETER.split(rewrite or parts.path or "/")
    pieces = tuple(zip(split[::2], [*split[1::2], ""], strict=True))
    return Target(Origin.of(url), parts.netloc.rpartition("@")[2], pieces, parts.query)
