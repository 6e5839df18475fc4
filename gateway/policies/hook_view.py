"""What a hook sees of a call: a copy of it, without its credential."""

from __future__ import annotations

from types import MappingProxyType

from gateway.call import Call
from gateway.hooks import api as hooks

HIDDEN = frozenset({b"authorization", b"x-api-key", b"proxy-authorization", b"sec-websocket-protocol"})
"""Headers that may carry the caller's credential."""
FORWARDING_HANDLERS = frozenset({"upstream", "websocket"})


def hook_call(call: Call) -> hooks.Call:
    """Return the hook's view of a call. Costs a few microseconds, so it is made only where a hook is called."""
    caller = call.caller
    return hooks.Call(
        principal=hooks.Principal(
            caller.consumer,
            caller.key,
            caller.tier,
            caller.scopes,
            MappingProxyType(dict(caller.metadata)),
            MappingProxyType(dict(caller.token.claims) if caller.token is not None else {}),
        ),
        route=call.route.name if call.route is not None else "",
        protocol=call.protocol.value,
        method=call.method,
        path=call.address,
        parameters=MappingProxyType(dict(call.parameters)),
        query=call.query.decode("latin-1"),
        ip=call.ip,
        origin=call.origin,
        headers=hooks.Headers(call.headers, HIDDEN),
    )


def apply_header_changes(call: Call, headers: hooks.Headers) -> None:
    """Apply to the call the changes that a hook made to the headers it was given.

    A call that is forwarded carries them as headers added by policies, which are sent unfiltered: a hook may set the
    credentials for the upstream.
    """
    if not headers.changed:
        return
    changed = {name.encode() for name in headers.changed}
    call.headers = [header for header in call.headers if header[0] not in changed]
    new = [header for header in headers.encoded() if header[0] in changed]
    if call.handler in FORWARDING_HANDLERS:
        call.added_headers = (*(header for header in call.added_headers if header[0] not in changed), *new)
    else:
        call.headers += new
