"""``api-key``: the call needs a key. Every route does; naming it says so to its readers."""

from gateway.policies.policy import Policy


class ApiKey(Policy):
    """Nothing of its own: ``gateway.authenticate`` has proved the key."""
