"""``api-key``: the call needs a credential. Every route requires one; naming the policy documents it."""

from collections.abc import Mapping
from typing import Any

from gateway.policies.options import allow_only
from gateway.policies.policy import Build, Policy


def api_key(options: Mapping[str, Any]) -> Build:
    """Read the options: there are none."""
    allow_only(options, ())
    return lambda _: ApiKey()


class ApiKey(Policy):
    """Does nothing: the credential was verified before any policy runs."""
