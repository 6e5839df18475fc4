"""``placeholder``: stands for a policy of another gateway that an operator has yet to replace; refuses every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.policies.options import BadOption, allow_only
from gateway.policies.policy import Build, UnusablePolicy
from gateway.refusals import Reason, Refused

PLACEHOLDER = "placeholder"


def placeholder(options: Mapping[str, Any]) -> Build:
    """Read the options: ``name``, and ``stands_for``, which says what it was."""
    allow_only(options, ("name", "stands_for"))
    for option in ("name", "stands_for"):
        if not isinstance(options.get(option, ""), str):
            raise BadOption(option, "Must be a string.")
    name = options.get("name")
    if not name:
        raise BadOption("name", "Is required.")
    refused = Refused(Reason.NOT_CONFIGURED, f"The policy {name} of this route is a placeholder.")
    return lambda _: UnusablePolicy(refused)
