"""The policies that a route may name: one file a policy, applied in the order that the route names."""

from gateway.policies.apply import inbound, outbound, preflight, renewed
from gateway.policies.made import KNOWN
from gateway.policies.policy import Answered, BadOption

__all__ = ["KNOWN", "Answered", "BadOption", "inbound", "outbound", "preflight", "renewed"]
