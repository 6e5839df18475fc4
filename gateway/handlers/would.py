"""The dry run of ``GET /v1/me?would=publish:ADDRESS&n=100``: what rights, policies and limits would say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.call import Call, Protocol, Right, Verb
from gateway.event import rfc3339
from gateway.policies.ip_restriction import IpRestriction
from gateway.policies.jwt import Jwt
from gateway.policies.made import KNOWN
from gateway.refusals import Reason, Refused
from gateway.rights import require
from gateway.snapshot import Metric, Route

if TYPE_CHECKING:
    from gateway.plane import Plane

N_MAX = 10**9
NAME_MAX_CHARS = 1024
OF_CONNECTIONS = {Metric.CONNECTIONS, Metric.OPEN_CONNECTIONS}
JUDGED = (IpRestriction, Jwt)
"""Policies that judge the caller alone; others need the call itself."""


async def say(plane: Plane, call: Call, would: str, n: str) -> dict[str, Any]:
    """Say whether it would be allowed now, or what would refuse it and until when. Raises Refused for nonsense."""
    right, count = _right(would), _count(n)
    said: dict[str, Any] = {"would": right.text, "n": count}
    try:
        require(call.who, right)
        metrics = _metrics(plane, call, right)
    except Refused as refused:
        return said | _no(refused, "scopes" if refused.reason is Reason.FORBIDDEN else "")
    except _Policy as policy:
        return said | _no(policy.refused, policy.name)
    for fact in plane.limiter.left(call.who, call):
        if Metric(fact["metric"]) in metrics and fact["mode"] != "shadow":
            limited = _limited(fact, count)
            if limited is not None:
                return said | limited
    return said | {"allowed": True}


class _Policy(Exception):
    """A policy of the route says no."""

    def __init__(self, name: str, refused: Refused) -> None:
        super().__init__(name)
        self.name = name
        self.refused = refused


def _right(would: str) -> Right:
    verb, _, name = would.partition(":")
    if verb not in list(Verb) or not 0 < len(name) <= NAME_MAX_CHARS:
        verbs = ", ".join(f"`{each}:NAME`" for each in Verb)
        raise Refused(Reason.INVALID_REQUEST, f"`would` is one of {verbs}.")
    return Right(Verb(verb), name)


def _count(n: str) -> int:
    if not n:
        return 1
    if not (n.isascii() and n.isdigit() and len(n) <= len(str(N_MAX)) and 0 < int(n) <= N_MAX):
        raise Refused(Reason.INVALID_REQUEST, f"`n` is a whole number from 1 to {N_MAX}.")
    return int(n)


def _metrics(plane: Plane, call: Call, right: Right) -> set[Metric]:
    """Say what it would be charged by. Raises Refused where it leads nowhere, and _Policy where a policy says no."""
    if right.verb is Verb.JOBS:
        return {Metric.REQUESTS, Metric.OPEN_JOBS}
    if right.verb is Verb.CALL:
        route = plane.snapshot.route(right.name)
        if route is None:
            raise Refused(Reason.NOT_FOUND, f"There is no route {right.name}.")
        _judge(call, route)
        return {Metric.REQUESTS} if route.protocol == Protocol.HTTP else OF_CONNECTIONS
    if plane.snapshot.channel(right.name) is None:
        raise Refused(Reason.NOT_FOUND, f"There is no channel at {right.name}.")
    return {Metric.MESSAGES_IN} if right.verb is Verb.PUBLISH else OF_CONNECTIONS


def _judge(call: Call, route: Route) -> None:
    for named in route.policies:
        if named.mode != "enforce" or KNOWN.get(named.type) not in JUDGED:
            continue
        try:
            KNOWN[named.type](named.options).inbound(call)
        except Refused as refused:
            raise _Policy(named.type, refused) from None


def _limited(fact: Mapping[str, Any], count: int) -> dict[str, Any] | None:
    """Say how a limit stands in the way; None where it does not. ``delay`` would let it wait."""
    remaining = fact["remaining"]
    if remaining is None or remaining >= count:
        return None
    size = fact["burst"] if fact["per"] is not None else fact["amount"]
    wait_s = _wait_s(fact, count, size)
    if fact["exceed"] == "delay" and wait_s is not None:
        return {"allowed": True, "policy": fact["name"], "delayed_s": wait_s}
    reason = Reason.QUOTA_EXCEEDED if fact["per"] == "month" else Reason.RATE_LIMITED
    if fact["metric"] == Metric.OPEN_CONNECTIONS:
        reason = Reason.TOO_MANY_CONNECTIONS
    detail = f"{remaining:g} of {fact['name']} are left."
    if count > size:
        detail += f" It never holds more than {size:g}: ask for less at once."
    return _refusal(reason, detail, fact["name"], wait_s)


def _wait_s(fact: Mapping[str, Any], count: int, size: float) -> float | None:
    """Say in how long so many are left; None where that is never, or nobody knows."""
    reset_s, remaining = fact["reset_s"], fact["remaining"]
    if reset_s is None or count > size or fact["per"] is None:
        return None
    if fact["per"] == "month":
        return float(reset_s)
    share = (count - float(remaining)) / max(size - float(remaining), 1.0)
    return round(float(reset_s) * share, 3)


def _no(refused: Refused, policy: str) -> dict[str, Any]:
    return _refusal(refused.reason, refused.detail, policy, refused.retry_after_s)


def _refusal(reason: Reason, detail: str, policy: str, wait_s: float | None) -> dict[str, Any]:
    until = rfc3339(datetime.fromtimestamp(time.time() + wait_s, UTC)) if wait_s is not None else None
    return {
        "allowed": False,
        "reason": reason.value,
        "detail": detail,
        "policy": policy or None,
        "retry_after_s": wait_s,
        "until": until,
    }
