"""What an operator's function sees of a call: a picture of it, without its credential."""

from __future__ import annotations

from types import MappingProxyType

from gateway.call import Call
from gateway.hooks import api as hooks

HIDDEN = frozenset({b"authorization", b"x-api-key", b"proxy-authorization", b"sec-websocket-protocol"})
"""Headers that may carry the caller's credential."""
SENT_BY_HANDLERS = frozenset({"upstream", "websocket"})


def seen(call: Call) -> hooks.Call:
    """Give the picture. Costs a few microseconds, so it is made for functions alone."""
    who = call.caller
    return hooks.Call(
        principal=hooks.Principal(
            who.consumer,
            who.key,
            who.tier,
            who.scopes,
            MappingProxyType(dict(who.metadata)),
            MappingProxyType(dict(who.token.claims) if who.token is not None else {}),
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


def take_over(call: Call, headers: hooks.Headers) -> None:
    """Change the call's headers as a function has changed those that it was given.

    What goes to an upstream goes with what policies add, which is sent as it is: credentials for it too.
    """
    if not headers.changed:
        return
    changed = {name.encode() for name in headers.changed}
    call.headers = [header for header in call.headers if header[0] not in changed]
    new = [header for header in headers.encoded() if header[0] in changed]
    if call.handler in SENT_BY_HANDLERS:
        call.added_headers = (*(header for header in call.added_headers if header[0] not in changed), *new)
    else:
        call.headers += new
