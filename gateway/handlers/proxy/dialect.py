"""The AI dialect that a call speaks, by the library that sends it or by the path of the API."""

from __future__ import annotations

from gateway.call import Call
from gateway.handlers.proxy.forwarding import forwarding_of
from gateway.wire.ai_dialects import Dialect, dialect_of


def dialect_of_call(call: Call) -> Dialect | None:
    """Return the dialect of a call that goes to an upstream, or to nothing that is served; None if it has none."""
    if call.handler and (call.route is None or call.route.handler.get("type") != "upstream"):
        return None
    return dialect_of(paths_of(call), call.headers)


def paths_of(call: Call) -> tuple[str, ...]:
    """Return the caller's path, and that of the upstream, which may be the only one that names the operation."""
    route = call.route
    if route is None or route.handler.get("type") != "upstream":
        return (call.address,)
    return call.address, forwarding_of(route).target.path_template
