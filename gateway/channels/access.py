"""Whether a call may publish to or read a channel."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.call import Call
from gateway.concurrency.short_cache import ARGUMENT_MAX
from gateway.identity.rights import require
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Channel, Snapshot
from gateway.snapshot.principal import Principal
from gateway.snapshot.right import Right, Verb
from gateway.wire.subjects import AddressError, subject_of

VALUES_SHOWN = 10
PLACES_MAX = 4_096
"""Addresses of callers that are kept, each of at most ``ARGUMENT_MAX`` characters."""


class Places:
    """The channels that callers publish to, found once for each principal and address of a revision."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._revision = -1
        self._found: dict[tuple[int, Protocol, str], tuple[Principal, Channel, str]] = {}

    def find(self, call: Call, address: str) -> tuple[Channel, str]:
        """Return what :func:`channel_for` returns for a publish. Raises Refused."""
        snapshot, principal = self._snapshot, call.caller
        if self._revision != snapshot.revision or len(self._found) >= PLACES_MAX:
            self._found.clear()
            self._revision = snapshot.revision
        key = (id(principal), call.protocol, address)
        found = self._found.get(key)
        # An entry holds its principal, so that no other one has its identity.
        if found is not None and call.route is None:
            return found[1], found[2]
        channel, subject = channel_for(snapshot, call, address, Verb.PUBLISH)
        if call.route is None and principal.token is None and len(address) <= ARGUMENT_MAX:
            self._found[key] = (principal, channel, subject)
        return channel, subject


def channel_for(snapshot: Snapshot, call: Call, address: str, verb: Verb) -> tuple[Channel, str]:
    """Return the channel of a concrete address and the address's subject, if the call has the right to it.

    Raises Refused ``forbidden``, ``not-found`` or ``invalid-request``. The right is checked first, so that a stranger
    does not learn which channels exist.
    """
    if not is_routed_to(call, address):
        require(call.caller, Right(verb, address))
    try:
        subject = subject_of(address)
    except AddressError as error:
        raise _invalid_address(str(error)) from None
    found = snapshot.channel(address)
    if found is None:
        raise Refused(Reason.NOT_FOUND, f"There is no channel at {address}.", cause="unknown-channel")
    channel, parameters = found
    if "{" in address and any(value in (f"{{{name}}}", f"{{{name}...}}") for name, value in parameters.items()):
        raise _invalid_address("the parameters of an address are filled in before it is used")
    require_protocol(channel, call)
    if channel.values:
        _require_values(channel, parameters)
    return channel, subject


def require_protocol(channel: Channel, call: Call) -> None:
    """Raise Refused ``forbidden`` if the channel excludes the call's protocol."""
    if channel.protocols and call.protocol.value not in channel.protocols and call.protocol is not Protocol.CONNECTOR:
        raise Refused(Reason.FORBIDDEN, f"The channel is not open to {call.protocol.value}.", cause="closed-door")


def _require_values(channel: Channel, parameters: Mapping[str, str]) -> None:
    """Raise Refused ``not-found`` if a parameter of the address has a value that the channel does not list."""
    for name, values in channel.values.items():
        if parameters[name] not in values:
            listed = ", ".join(list(values)[:VALUES_SHOWN]) + (", …" if len(values) > VALUES_SHOWN else "")
            raise Refused(
                Reason.NOT_FOUND,
                f"The parameter {name} of {channel.address} is one of: {listed}.",
                cause="unknown-channel",
            )


def is_routed_to(call: Call, address: str) -> bool:
    """Return whether the call came by a route whose handler is that channel: the right to the route suffices then.

    Of a channel with parameters it is the one address that the call's path fills in.
    """
    return (
        call.route is not None
        and call.route.handler.get("type") == "channel"
        and call.parameters.get("address") == address
    )


def _invalid_address(detail: str) -> Refused:
    return Refused(Reason.INVALID_REQUEST, f"{detail}.", cause="invalid-address")
