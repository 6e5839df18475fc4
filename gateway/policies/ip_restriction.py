"""``ip-restriction``: from which network addresses a route may be called."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from gateway.call import Call
from gateway.identity.places import address
from gateway.policies.policy import BadOption, Policy, only, texts
from gateway.refusals import Reason, Refused


class IpRestriction(Policy):
    """Options: ``allow`` and ``deny``, lists of addresses or networks. Denied wins; an empty ``allow`` allows all."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("allow", "deny"))
        self._allow = _networks(options, "allow")
        self._deny = _networks(options, "deny")

    def inbound(self, call: Call) -> None:
        """Refuse a call from elsewhere."""
        ip = address(call.ip)
        if any(ip in network for network in self._deny) or (
            self._allow and not any(ip in network for network in self._allow)
        ):
            raise Refused(Reason.IP_NOT_ALLOWED)


def _networks(options: Mapping[str, Any], name: str) -> list[IPv4Network | IPv6Network]:
    found = []
    for number, text in enumerate(texts(options, name)):
        try:
            found.append(ip_network(text, strict=False))
        except ValueError:
            raise BadOption(f"{name}[{number}]", "Must be an address or a network, such as 192.0.2.0/24.") from None
    return found
