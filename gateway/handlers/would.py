"""The dry run of ``GET /v1/me?would=publish:ADDRESS&n=100``: what rights, policies and limits would say."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.identity.rights import require
from gateway.limiter import DELAY_MAX_S, DELAY_REQUEST_MAX_S
from gateway.log.event import rfc3339
from gateway.policies.ip_restriction import IpRestriction
from gateway.policies.jwt import Jwt
from gateway.policies.policy import UnusablePolicy
from gateway.policies.rate_limit import RouteLimit
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import BUILTIN
from gateway.snapshot.picture import Metric, Route, target_of
from gateway.snapshot.right import Right, Verb

if TYPE_CHECKING:
    from gateway.plane import Plane

N_MAX = 10**9
NAME_MAX_CHARS = 1024
OF_CONNECTIONS = {Metric.CONNECTIONS, Metric.OPEN_CONNECTIONS}
JUDGED = (IpRestriction, Jwt, UnusablePolicy)
"""Policies that judge the caller alone; others need the call itself."""


async def say(plane: Plane, call: Call, would: str, n: str) -> dict[str, Any]:
    """Say whether it would be allowed now, or what would refuse it and until when. Raises Refused for nonsense."""
    right, count = _right(would), _count(n)
    said: dict[str, Any] = {"would": right.text, "n": count}
    try:
        if not _is_own_door(plane, right):
            require(call.caller, right)
        metrics, own = await _leads_to(plane, call, right)
    except Refused as refused:
        return said | _no(refused, "scopes" if refused.reason is Reason.FORBIDDEN else "")
    except _Policy as policy:
        return said | _no(policy.refused, policy.name)
    of_caller = [fact for fact in plane.limiter.left(call.caller, call) if Metric(fact["metric"]) in metrics]
    delay_max_s = DELAY_MAX_S if right.verb is Verb.PUBLISH else DELAY_REQUEST_MAX_S
    return said | _limited([*of_caller, *own], count, delay_max_s)


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


def _is_own_door(plane: Plane, right: Right) -> bool:
    """Say whether it is a call by the gateway's own door, where no right to call is asked for."""
    route = plane.snapshot.route(right.name) if right.verb is Verb.CALL else None
    return route is not None and route.handler["type"] == BUILTIN


def _count(n: str) -> int:
    if not n:
        return 1
    if not (n.isascii() and n.isdigit() and len(n) <= len(str(N_MAX)) and 0 < int(n) <= N_MAX):
        raise Refused(Reason.INVALID_REQUEST, f"`n` is a whole number from 1 to {N_MAX}.")
    return int(n)


async def _leads_to(plane: Plane, call: Call, right: Right) -> tuple[set[Metric], list[dict[str, Any]]]:
    """Say what it would be charged by: metrics of the caller's limits, and limits of the route's own.

    Raises Refused where it leads nowhere, and _Policy where a policy says no.
    """
    if right.verb is Verb.JOBS:
        await plane.jobs.input_schema(right.name)
        return {Metric.REQUESTS, Metric.OPEN_JOBS}, []
    if right.verb is Verb.CALL:
        route = plane.snapshot.route(right.name)
        if route is None:
            raise Refused(Reason.NOT_FOUND, f"There is no route {right.name}.")
        protocol, target = Protocol(route.protocol), target_of(route)
        trial = replace(call, protocol=protocol, address=route.path, target=target, route=route)
        return await _metrics(plane, route), await _judge(plane, trial, route)
    if plane.snapshot.channel(right.name) is None:
        raise Refused(Reason.NOT_FOUND, f"There is no channel at {right.name}.")
    return {Metric.MESSAGES_IN} if right.verb is Verb.PUBLISH else OF_CONNECTIONS, []


async def _metrics(plane: Plane, route: Route) -> set[Metric]:
    """Say what a call of this route is charged by. Raises Refused where its job type is gone."""
    if route.protocol != Protocol.HTTP:
        return OF_CONNECTIONS
    kind = route.handler["type"]
    if kind == "job":
        await plane.jobs.input_schema(route.handler["job_type"])
        return {Metric.REQUESTS, Metric.OPEN_JOBS}
    publishes = kind == "channel" and [*route.methods] == ["POST"]
    return {Metric.REQUESTS, Metric.MESSAGES_IN} if publishes else {Metric.REQUESTS}


async def _judge(plane: Plane, trial: Call, route: Route) -> list[dict[str, Any]]:
    """Ask the policies that judge the caller alone; gives the route's own limits. Raises _Policy."""
    limits = []
    for policy, _ in plane.policies.of(route).inward:
        if policy.is_shadow:
            continue
        try:
            if isinstance(policy, JUDGED):
                policy.inbound(trial)
            elif isinstance(policy, RouteLimit) and (found := await policy.limit_of(trial)) is not None:
                limits.append(await plane.limiter.look_by(trial, *found))
        except Refused as refused:
            raise _Policy(policy.type, refused) from None
    return limits


def _limited(facts: Iterable[Mapping[str, Any]], count: int, delay_max_s: float) -> dict[str, Any]:
    """Say how limits stand in the way: the first that refuses, else the one that holds back the longest."""
    delays = []
    for fact in facts:
        if fact["mode"] == "shadow" or fact["remaining"] is None or fact["remaining"] >= count:
            continue
        size = fact["burst"] if fact["per"] is not None else fact["amount"]
        wait_s = _wait_s(fact, count, size)
        if fact["exceed"] != "delay" or wait_s is None or wait_s > delay_max_s:
            return _stopped(fact, count, size, wait_s)
        delays.append((wait_s, fact["name"]))
    if not delays:
        return {"allowed": True}
    delayed_s, name = max(delays)
    return {"allowed": True, "policy": name, "delayed_s": delayed_s}


def _stopped(fact: Mapping[str, Any], count: int, size: float, wait_s: float | None) -> dict[str, Any]:
    reason = Reason.QUOTA_EXCEEDED if fact["per"] == "month" else Reason.RATE_LIMITED
    if fact["metric"] == Metric.OPEN_CONNECTIONS:
        reason = Reason.TOO_MANY_CONNECTIONS
    detail = f"{fact['remaining']:g} of {fact['name']} are left."
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
