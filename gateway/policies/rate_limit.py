"""``rate-limit``: the limits of the caller's tier apply. They do on every route; naming it says so to its readers."""

from gateway.policies.policy import Policy


class RateLimit(Policy):
    """Nothing of its own: ``gateway.limit`` has charged the tier's limits."""
