"""``ip-restriction``: from which network addresses a route may be called."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from gateway.call import Call
from gateway.policies.policy import Policy, only, texts
from gateway.refusals import Reason, Refused


class IpRestriction(Policy):
    """Options: ``allow`` and ``deny``, lists of addresses or networks. Denied wins; an empty ``allow`` allows all."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        only(options, ("allow", "deny"))
        self._allow = [ip_network(network, strict=False) for network in texts(options, "allow")]
        self._deny = [ip_network(network, strict=False) for network in texts(options, "deny")]

    def inbound(self, call: Call) -> None:
        """Refuse a call from elsewhere."""
        ip = ip_address(call.ip)
        if any(ip in network for network in self._deny) or (
            self._allow and not any(ip in network for network in self._allow)
        ):
            raise Refused(Reason.IP_NOT_ALLOWED)
