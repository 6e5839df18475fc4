"""The policies that a route may name: one file each, applied in the order that the route names them."""

from gateway.policies.known import KNOWN
from gateway.policies.options import BadOption
from gateway.policies.policies import Policies
from gateway.policies.policy import Dependencies, OutgoingAnswer

__all__ = ["KNOWN", "BadOption", "Dependencies", "OutgoingAnswer", "Policies"]
