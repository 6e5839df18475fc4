"""The snapshot: consumers, keys, routes, channels and all else that the control plane configures, in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from gateway.concurrency.room import make_room
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.schemas.registered import Latest
from gateway.snapshot.addresses import AddressTable
from gateway.snapshot.documents import (
    READERS,
    Channel,
    Connector,
    Consumer,
    Issuer,
    Key,
    Limit,
    Membership,
    Metric,
    Policy,
    Route,
    Tier,
)
from gateway.snapshot.endpoints import (
    BUILTIN,
    CHANNEL_EVENTS,
    CHANNEL_PREFIX,
    CHANNEL_SUFFIX,
    ENDPOINTS,
    REGISTRY,
    Endpoint,
)
from gateway.snapshot.matching import Entries, Match, match_of, methods_of, takes_method
from gateway.snapshot.methods import ANY, allow_of
from gateway.snapshot.paths import KEPT_SLASH
from gateway.snapshot.principal import Principal, bearer
from gateway.snapshot.routing import PathTable
from gateway.snapshot.subscriptions import Subscription

__all__ = ["Channel", "Connector", "Consumer", "Key", "Limit", "Match", "Metric", "Policy", "Route", "Snapshot", "Tier"]

logger = logging.getLogger(__name__)

MATCHES_KEPT = 4096
NAME_MAX_CHARS = 255
"""Paths are kept if they are no longer, so that the cache has a ceiling in bytes."""

_NAMES = {"key": "id", "channel": "address", "subscription": "id"}


class Snapshot:
    """The configuration as of one revision: look-ups in dictionaries. :mod:`gateway.snapshot.feed` updates it."""

    def __init__(self) -> None:
        self.revision = 0
        self._documents: dict[str, dict[str, Any]] = {kind: {} for kind in READERS}
        self._principals: dict[str, Principal] = {}
        self._keys_of: dict[str, set[str]] = {}
        self._memberships: dict[str, Membership] = {}
        self._issuers: dict[str, Issuer] = {}
        """By the ``iss`` of their tokens."""
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._paths: PathTable[Route | Endpoint] = PathTable()
        self._builtin: dict[str, Route] = {}
        self._matches: dict[tuple[bool, str, str], Match] = {}
        self._addresses = AddressTable()
        self._rebuild_tables({"route", "channel"})

    @classmethod
    def from_documents(cls, documents: Mapping[str, Iterable[Mapping[str, Any]]]) -> Snapshot:
        """Return a snapshot of documents by kind (see docs/architecture.md)."""
        snapshot = cls()
        snapshot.apply(
            [
                (kind, document[_NAMES.get(kind, "name")], document)
                for kind, all_ in documents.items()
                for document in all_
            ]
        )
        return snapshot

    def apply(self, changes: Iterable[tuple[str, str, Mapping[str, Any] | None]]) -> None:
        """Apply changes in order: (kind, name, document or None for a deletion). Then notify the listeners.

        A document that cannot be read is logged and skipped, so that it does not stop the others.
        """
        kinds: set[str] = set()
        for kind, name, document in changes:
            if kind not in READERS:
                continue
            try:
                self._set(kind, name, None if document is None else READERS[kind](document))
            except (KeyError, TypeError, ValueError):
                logger.exception("snapshot: a document of kind %s could not be read", kind)
                continue
            kinds.add(kind)
        if not kinds:
            return
        self._rebuild_tables(kinds)
        self.revision += 1
        for listener in self._listeners:
            listener(frozenset(kinds))

    def on_change(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Register a listener, called after each update with the kinds of documents that changed."""
        self._listeners.append(listener)

    def names(self) -> set[tuple[str, str]]:
        """Return the (kind, name) of every document."""
        return {(kind, name) for kind, documents in self._documents.items() for name in documents}

    def key(self, key_id: str) -> Key | None:
        """Return a key, also if it is revoked or expired."""
        key: Key | None = self._documents["key"].get(key_id)
        return key

    def principal(self, key_id: str) -> Principal | None:
        """Return the principal of a key; None if the key is unknown or revoked, or its consumer inactive.

        Its expiry is for the caller to check: this method uses no clock.
        """
        cached = self._principals.get(key_id)
        if cached is not None:
            return cached
        key = self.key(key_id)
        if key is None or key.revoked_at is not None:
            return None
        membership = self.membership(key.consumer)
        if membership is None:
            return None
        principal = Principal(
            consumer=membership.consumer.name,
            key=key.id,
            tier=membership.tier.name,
            scopes=key.scopes,
            ceiling=membership.tier.scopes,
            limits=_overridden(membership.limits, key.limits),
            metadata={**membership.consumer.metadata, **key.metadata},
            expires_at=key.expires_at,
        )
        self._principals[key_id] = principal
        return principal

    def current_principal(self, principal: Principal) -> Principal | None:
        """Return the principal of the same key or token as of now; None if it is no longer valid.

        Returns the same object if nothing about it has changed. Its expiry is for the caller to check.
        """
        token = principal.token
        if token is None:
            return self.principal(principal.key)
        if self.issuer(token.issuer.name) is not token.issuer or token.signer.is_withdrawn:
            return None
        membership = self.membership(principal.consumer)
        if membership is None:
            return None
        if membership is token.membership:
            return principal
        return bearer(replace(token, membership=membership), principal.scopes, principal.expires_at)

    def membership(self, consumer_name: str) -> Membership | None:
        """Return an active consumer with its tier and limits; None if it is unknown or inactive."""
        cached = self._memberships.get(consumer_name)
        if cached is not None:
            return cached
        consumer: Consumer | None = self._documents["consumer"].get(consumer_name)
        if consumer is None or not consumer.is_active:
            return None
        tier: Tier = self._documents["tier"].get(consumer.tier) or Tier(consumer.tier)
        membership = Membership(consumer, tier, _overridden(tier.limits, consumer.limits))
        self._memberships[consumer_name] = membership
        return membership

    def issuer(self, name: str) -> Issuer | None:
        issuer: Issuer | None = self._documents["issuer"].get(name)
        return issuer

    def issuer_of(self, iss: str) -> Issuer | None:
        """Return the issuer whose tokens have exactly this ``iss``."""
        return self._issuers.get(iss)

    def issuers(self) -> Iterable[Issuer]:
        return self._documents["issuer"].values()

    def touch(self, kind: str) -> None:
        """Notify the listeners as if documents of this kind had changed: something derived from them has."""
        self.revision += 1
        for listener in self._listeners:
            listener(frozenset({kind}))

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return a durable subscription, also if it is paused or ended."""
        subscription: Subscription | None = self._documents["subscription"].get(subscription_id)
        return subscription

    def subscriptions(self) -> Iterable[Subscription]:
        return self._documents["subscription"].values()

    def channel(self, address: str) -> tuple[Channel, Mapping[str, str]] | None:
        """Return the channel of a concrete address, and the values of its parameters."""
        return self._addresses.find(address)

    def channel_of(self, stream: str) -> Channel | None:
        """Return the channel whose events a stream holds."""
        return self._addresses.of_stream(stream)

    def channel_covering(self, subject_filter: str) -> Channel | None:
        """Return the channel that readers of a subject filter read: the most specific one that matches all of it."""
        return self._addresses.covering(subject_filter)

    def channels_covering(self, subject_filter: str) -> tuple[Channel, ...]:
        """Return the channels that match all of a subject filter: the one that readers read, and less specific ones."""
        return self._addresses.all_covering(subject_filter)

    def channels_meeting(self, subject_filters: Iterable[str]) -> list[Channel]:
        """Return the channels that may own an address which one of the filters matches."""
        return self._addresses.meeting(subject_filters)

    def channels(self) -> Iterable[Channel]:
        return self._documents["channel"].values()

    def schema(self, subject: str) -> Latest | None:
        """Return the latest version of a subject of the registry."""
        latest: Latest | None = self._documents["schema"].get(subject)
        return latest

    def subjects(self) -> Mapping[str, Latest]:
        """Return the latest version of each subject of the registry that has one, by its name."""
        return {name: latest for name, latest in self._documents["schema"].items() if latest is not None}

    def route(self, name: str) -> Route | None:
        route: Route | None = self._documents["route"].get(name)
        return route

    def builtin(self, protocol: Protocol) -> Route | None:
        """Return the route to the gateway's own endpoint of a protocol, if there is one."""
        return self._builtin.get(protocol.value)

    def connectors(self) -> Iterable[Connector]:
        return self._documents["connector"].values()

    def routes(self) -> Iterable[Route]:
        return self._documents["route"].values()

    def match(self, protocol: Protocol, method: str, path: str) -> Match:
        """Return what a request is for. ``protocol`` is WEBSOCKET for an upgrade, else HTTP.

        Raises Refused ``not-found``, ``method-not-allowed`` or ``upgrade-required``.
        """
        is_socket = protocol is Protocol.WEBSOCKET
        match = self._matches.get((is_socket, method, path))
        if match is None:
            match = self._find_match(protocol, method, path)
            if len(path) <= NAME_MAX_CHARS:
                make_room(self._matches, MATCHES_KEPT)
                self._matches[is_socket, method, path] = match
        return match

    def route_at(self, protocol: Protocol, path: str) -> Route | None:
        """Return the first route at a path whatever its methods: whose policies apply to a refusal there."""
        return next((entry for entry, _ in self._entries(protocol, path)[0] if isinstance(entry, Route)), None)

    def _entries(self, protocol: Protocol, path: str) -> tuple[Entries, Entries]:
        """Return what is served at a path by this protocol, and by any."""
        found = self._paths.find_exact(path) or _channel_events(path) or self._paths.find(path)
        is_socket = protocol is Protocol.WEBSOCKET
        return [each for each in found if (each[0].protocol == Protocol.WEBSOCKET) == is_socket], found

    def _find_match(self, protocol: Protocol, method: str, path: str) -> Match:
        usable, found = self._entries(protocol, path)
        if not usable:
            if found and protocol is not Protocol.WEBSOCKET:
                raise _socket_alone(method, path)
            raise Refused(Reason.NOT_FOUND, f"Nothing is served at {path}.")
        for served in (method, "GET") if method == "HEAD" else (method,):
            for entry, parameters in usable:
                if takes_method(entry, served):
                    return match_of(entry, parameters, served)
        allowed = {each for entry, _ in usable for each in methods_of(entry)}
        if not allowed or ANY in allowed:
            raise Refused(Reason.METHOD_NOT_IMPLEMENTED, f"The gateway does not serve {method}.")
        allow = allow_of(allowed)
        detail = f"{path.replace(KEPT_SLASH, '%2F')} takes {allow}."
        raise Refused(Reason.METHOD_NOT_ALLOWED, detail, headers=((b"allow", allow.encode()),))

    def _set(self, kind: str, name: str, document: Any) -> None:
        documents = self._documents[kind]
        before = documents.get(name)
        if kind == "issuer" and document == before:
            # Unchanged: principals of its tokens stay valid.
            return
        if document is None:
            documents.pop(name, None)
        else:
            documents[name] = document
        self._forget(kind, name, before, document)

    def _forget(self, kind: str, name: str, before: Any, document: Any) -> None:
        """Drop what was derived from a changed document."""
        if kind == "key":
            self._principals.pop(name, None)
            if before is not None:
                self._keys_of.get(before.consumer, set()).discard(name)
            if document is not None:
                self._keys_of.setdefault(document.consumer, set()).add(name)
        elif kind == "consumer":
            self._memberships.pop(name, None)
            for key_id in self._keys_of.get(name, ()):
                self._principals.pop(key_id, None)
        elif kind == "tier":
            self._memberships.clear()
            self._principals.clear()

    def _rebuild_tables(self, kinds: set[str]) -> None:
        if "issuer" in kinds:
            self._issuers = {issuer.issuer: issuer for issuer in self.issuers()}
        if "route" in kinds:
            self._matches.clear()
            routes: list[Route] = list(self._documents["route"].values())
            overridden = {route.path for route in routes if route.reserved_override}
            self._builtin = {route.protocol: route for route in routes if route.handler.get("type") == BUILTIN}
            self._paths = PathTable((route.path, route) for route in routes if route.protocol != Protocol.MQTT)
            for endpoint in (*ENDPOINTS, *REGISTRY):
                if endpoint.path not in overridden:
                    self._paths.add(endpoint.path, endpoint)
        if "channel" in kinds:
            self._addresses = AddressTable(self._documents["channel"].values())


def _channel_events(path: str) -> list[tuple[Route | Endpoint, Mapping[str, str]]]:
    if not (path.startswith(CHANNEL_PREFIX) and path.endswith(CHANNEL_SUFFIX)):
        return []
    address = path[len(CHANNEL_PREFIX) : -len(CHANNEL_SUFFIX)]
    return [(endpoint, {"address": address}) for endpoint in CHANNEL_EVENTS] if address else []


def _overridden(limits: tuple[Limit, ...], overrides: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """Return the limits with the overrides, each of which replaces those of the same metric and period."""
    if not overrides:
        return limits
    replaced = {(limit.metric, limit.per) for limit in overrides}
    return (*(limit for limit in limits if (limit.metric, limit.per) not in replaced), *overrides)


def _socket_alone(method: str, path: str) -> Refused:
    """Return the refusal of a request without an upgrade, at a path where only a WebSocket is served."""
    if method in ("GET", "HEAD"):
        return Refused(Reason.UPGRADE_REQUIRED, headers=((b"upgrade", b"websocket"),))
    return Refused(Reason.METHOD_NOT_ALLOWED, f"{path} takes GET, as a WebSocket.", headers=((b"allow", b"GET"),))
