"""Policies as routes name them, and what those in shadow mode would have refused."""

from __future__ import annotations

from typing import Any

from gateway.hooks.functions import HookFunctions
from gateway.policies import Dependencies, Policies
from gateway.side_thread import SideThreads

HOOKS = "hooks_of_an_operator"


def policies_for(plane: Any) -> Policies:
    """Return the policies of a plane of the tests, which may have no log."""
    config = plane.config
    return Policies(
        Dependencies(
            config=config,
            snapshot=plane.snapshot,
            limiter=plane.limiter,
            tallies=plane.limiter.usage,
            hooks=HookFunctions(timeout_s=config.hook_timeout_s, threads_each=config.hook_threads),
            log=getattr(plane, "log", None),  # type: ignore[arg-type]
            publisher=getattr(plane, "publisher", None),  # type: ignore[arg-type]
            side_threads=getattr(plane, "side_threads", None) or SideThreads(),
        )
    )


def shadowed(plane: Any) -> list[tuple[str, str]]:
    """Return policy and reason of what shadows would have refused since this was last called."""
    records = plane.limiter.usage_records(with_levels=False)
    return [
        (record["name"], record["reason"])
        for record in records
        if record["scope"] == "policy"
        for _ in range(record["shadowed"])
    ]


def policy(type_: str, mode: str = "enforce", **options: Any) -> dict[str, Any]:
    return {"type": type_, "options": options, "mode": mode}


def custom(function: str, mode: str = "enforce", **options: Any) -> dict[str, Any]:
    return policy("custom", mode, function=f"{HOOKS}:{function}", **options)
