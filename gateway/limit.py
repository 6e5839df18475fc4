"""Limit: admit a call as its caller's limits allow, and release what it held."""

from __future__ import annotations

from gateway.call import Call
from gateway.limiter import Limiter


async def limit(limiter: Limiter, call: Call) -> None:
    """Admit the call, or raise Refused. A dry run (``/v1/me?would=``) is not charged."""
    await limiter.admit(call)


def release(limiter: Limiter, call: Call) -> None:
    """Give back what the call held while it was open. Never waits, never raises."""
    limiter.released(call)
