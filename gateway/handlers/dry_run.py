"""The dry run of ``GET /v1/me?would=publish:ADDRESS&n=100``: the decision of rights, policies and limits."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.call import Call
from gateway.handlers.requests import whole_number
from gateway.identity.rights import require
from gateway.limits.settling import DELAY_MAX_S, DELAY_REQUEST_MAX_S
from gateway.log.event import rfc3339
from gateway.policies.ip_restriction import IpRestriction
from gateway.policies.jwt import Jwt
from gateway.policies.policy import UnusablePolicy
from gateway.policies.rate_limit import RouteLimit
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.endpoints import BUILTIN
from gateway.snapshot.matching import target_of
from gateway.snapshot.picture import Metric, Route
from gateway.snapshot.right import Right, Verb

if TYPE_CHECKING:
    from gateway.plane import Plane

N_MAX = 10**9
NAME_MAX_CHARS = 1024
CONNECTION_METRICS = {Metric.CONNECTIONS, Metric.OPEN_CONNECTIONS}
CALLER_POLICIES = (IpRestriction, Jwt, UnusablePolicy)
"""Policies that look at the caller only; others need the call itself."""


async def dry_run(plane: Plane, call: Call, would: str, n: str) -> dict[str, Any]:
    """Return whether a call would be allowed now, or else what would refuse it and until when.

    Raises Refused for a ``would`` or ``n`` that cannot be read.
    """
    right, count = _right(would), whole_number("n", n, N_MAX) if n else 1
    request: dict[str, Any] = {"would": right.text, "n": count}
    try:
        if not _is_builtin(plane, right):
            require(call.caller, right)
        metrics, route_limits = await _charges(plane, call, right)
    except Refused as refused:
        return request | _refused(refused, "scopes" if refused.reason is Reason.FORBIDDEN else "")
    except _PolicyRefused as policy:
        return request | _refused(policy.refused, policy.name)
    caller_limits = [fact for fact in plane.limiter.left(call.caller, call) if Metric(fact["metric"]) in metrics]
    delay_max_s = DELAY_MAX_S if right.verb is Verb.PUBLISH else DELAY_REQUEST_MAX_S
    return request | _limited([*caller_limits, *route_limits], count, delay_max_s)


class _PolicyRefused(Exception):
    """A policy of the route would refuse the call."""

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


def _is_builtin(plane: Plane, right: Right) -> bool:
    """Return whether it is a call of an endpoint of the gateway itself, which needs no right to call."""
    route = plane.snapshot.route(right.name) if right.verb is Verb.CALL else None
    return route is not None and route.handler["type"] == BUILTIN


async def _charges(plane: Plane, call: Call, right: Right) -> tuple[set[Metric], list[dict[str, Any]]]:
    """Return what it would be charged to: metrics of the caller's limits, and the route's own limits.

    Raises Refused where the target does not exist, and _PolicyRefused where a policy would refuse the call.
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
        return await _metrics(plane, route), await _route_limits(plane, trial, route)
    if plane.snapshot.channel(right.name) is None:
        raise Refused(Reason.NOT_FOUND, f"There is no channel at {right.name}.")
    return {Metric.MESSAGES_IN} if right.verb is Verb.PUBLISH else CONNECTION_METRICS, []


async def _metrics(plane: Plane, route: Route) -> set[Metric]:
    """Return the metrics that a call of this route is charged to. Raises Refused where its job type is gone."""
    if route.protocol != Protocol.HTTP:
        return CONNECTION_METRICS
    kind = route.handler["type"]
    if kind == "job":
        await plane.jobs.input_schema(route.handler["job_type"])
        return {Metric.REQUESTS, Metric.OPEN_JOBS}
    publishes = kind == "channel" and [*route.methods] == ["POST"]
    return {Metric.REQUESTS, Metric.MESSAGES_IN} if publishes else {Metric.REQUESTS}


async def _route_limits(plane: Plane, trial: Call, route: Route) -> list[dict[str, Any]]:
    """Check the policies that look at the caller only, and return the route's own limits. Raises _PolicyRefused."""
    limits = []
    for policy, _ in plane.policies.of(route).inward:
        if policy.is_shadow:
            continue
        try:
            if isinstance(policy, CALLER_POLICIES):
                policy.inbound(trial)
            elif isinstance(policy, RouteLimit) and (own := await policy.limit_of(trial)) is not None:
                limits.append(await plane.limiter.look_by(trial, *own))
        except Refused as refused:
            raise _PolicyRefused(policy.type, refused) from None
    return limits


def _limited(facts: Iterable[Mapping[str, Any]], count: int, delay_max_s: float) -> dict[str, Any]:
    """Return the decision of the limits: the first that refuses, or else the one that delays the longest."""
    delays = []
    for fact in facts:
        if fact["mode"] == "shadow" or fact["remaining"] is None or fact["remaining"] >= count:
            continue
        size = fact["burst"] if fact["per"] is not None else fact["amount"]
        wait_s = _wait_s(fact, count, size)
        if fact["exceed"] != "delay" or wait_s is None or wait_s > delay_max_s:
            return _limit_refusal(fact, count, size, wait_s)
        delays.append((wait_s, fact["name"]))
    if not delays:
        return {"allowed": True}
    delayed_s, name = max(delays)
    return {"allowed": True, "policy": name, "delayed_s": delayed_s}


def _limit_refusal(fact: Mapping[str, Any], count: int, size: float, wait_s: float | None) -> dict[str, Any]:
    reason = Reason.QUOTA_EXCEEDED if fact["per"] == "month" else Reason.RATE_LIMITED
    if fact["metric"] == Metric.OPEN_CONNECTIONS:
        reason = Reason.TOO_MANY_CONNECTIONS
    detail = f"{fact['remaining']:g} of {fact['name']} are left."
    if count > size:
        detail += f" It never allows more than {size:g} at once."
    return _refusal(reason, detail, fact["name"], wait_s)


def _wait_s(fact: Mapping[str, Any], count: int, size: float) -> float | None:
    """Return the seconds until ``count`` are left; None for never, or unknown."""
    reset_s, remaining = fact["reset_s"], fact["remaining"]
    if reset_s is None or count > size or fact["per"] is None:
        return None
    if fact["per"] == "month":
        return float(reset_s)
    share = (count - float(remaining)) / max(size - float(remaining), 1.0)
    return round(float(reset_s) * share, 3)


def _refused(refused: Refused, policy: str) -> dict[str, Any]:
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
