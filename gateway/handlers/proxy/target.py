"""Where a route's calls go: origin, Host and path at the upstream."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.call import Call
from gateway.handlers.proxy.path_map import Pieces, pieces_of
from gateway.snapshot.documents import Route
from gateway.snapshot.paths import as_sent
from gateway.upstream.origin import Origin


@dataclass(frozen=True, slots=True)
class Target:
    """Where the calls of a route go, parsed once from its handler."""

    origin: Origin
    host: str
    path_template: str
    pieces: Pieces
    query: str

    def path_for(self, call: Call) -> str:
        """Return the request target for a call."""
        parameters = call.parameters
        if b"%" in call.raw_path and call.route is not None:
            parameters = as_sent(call.route.path, call.raw_path, parameters)
        path = "".join([text + parameters[name] if name else text for text, name in self.pieces])
        if not call.query and not self.query:
            return f"{path}?" if call.has_empty_query else path
        own = call.query.decode("latin-1")
        return f"{path}?{self.query}&{own}" if self.query and own else f"{path}?{self.query}{own}"


def target_of(route: Route) -> Target:
    """Return where the calls of a route go."""
    parts = urlsplit(route.handler["url"])
    path = route.handler.get("rewrite") or parts.path or "/"
    return Target(Origin.of(route.handler["url"]), parts.netloc.rpartition("@")[2], path, pieces_of(path), parts.query)
