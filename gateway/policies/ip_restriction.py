"""``ip-restriction``: from which IP addresses a route may be called."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from gateway.call import Call
from gateway.identity.places import address
from gateway.policies.options import BadOption, allow_only, strings
from gateway.policies.policy import Build, Policy
from gateway.refusals import Reason, Refused

Networks = list[IPv4Network | IPv6Network]


def ip_restriction(options: Mapping[str, Any]) -> Build:
    """Read the options: ``allow`` and ``deny``, lists of IP addresses or networks."""
    allow_only(options, ("allow", "deny"))
    allow, deny = _networks(options, "allow"), _networks(options, "deny")
    return lambda _: IpRestriction(allow, deny)


class IpRestriction(Policy):
    """Refuses IP addresses that are denied, or not allowed. ``deny`` wins; an empty ``allow`` allows all others."""

    is_of_caller = True

    def __init__(self, allow: Networks, deny: Networks) -> None:
        self._allow = allow
        self._deny = deny

    def inbound(self, call: Call) -> None:
        """Raise Refused for an IP address that may not call."""
        ip = address(call.ip)
        if any(ip in network for network in self._deny) or (
            self._allow and not any(ip in network for network in self._allow)
        ):
            raise Refused(Reason.IP_NOT_ALLOWED)


def _networks(options: Mapping[str, Any], name: str) -> Networks:
    networks = []
    for number, text in enumerate(strings(options, name)):
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            raise BadOption(f"{name}[{number}]", "Must be an IP address or a network, such as 192.0.2.0/24.") from None
    return networks
