"""The documents of the snapshot as values: consumers, keys, tiers with their limits, routes, channels and issuers.

docs/architecture.md describes how they lie in the NATS KV bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from gateway.schemas.registered import Latest, subject_named
from gateway.snapshot import subscriptions
from gateway.snapshot.right import Verb
from gateway.wire.content_types import JSON, media_type_of
from gateway.wire.subjects import Template

EVERY_SCOPE = frozenset(f"{verb.value}:*" for verb in Verb)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signature algorithms of tokens. Asymmetric ones only: with a shared secret or no signature, anyone who knows the
public key could sign."""


class Metric(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    CONNECTIONS = "connections"
    OPEN_CONNECTIONS = "open_connections"
    MESSAGES_IN = "messages_in"
    MESSAGES_OUT = "messages_out"
    BYTES_IN = "bytes_in"
    BYTES_OUT = "bytes_out"
    TOKENS_IN = "tokens_in"
    TOKENS_OUT = "tokens_out"
    OPEN_JOBS = "open_jobs"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a tier, consumer or key (see docs/limits.md)."""

    metric: Metric
    amount: float
    per: float | str | None = None
    """Seconds, ``"month"``, or None for what is counted while open (``open_connections``, ``open_jobs``)."""
    burst: float = 0
    scope: str = "consumer"
    exceed: str = "reject"
    mode: str = "enforce"
    close_at: float = 20
    fail: str = "open"

    @property
    def name(self) -> str:
        """Its name in ``RateLimit-Policy`` and ``violated-policies``: ``requests-per-10s``, ``requests-per-10s-ip``."""
        name = self.metric.value
        if self.per is not None:
            name += f"-per-{self.per if isinstance(self.per, str) else f'{self.per:g}s'}"
        return name if self.scope == "consumer" else f"{name}-{self.scope}"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of a route."""

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "enforce"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a route waits for its upstream, in seconds; None: as the settings have it."""

    connect_s: float | None = None
    first_byte_s: float | None = None
    idle_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A path that may be called, and what handles it. A changed route is another object: what follows is kept by it."""

    name: str
    path: str
    methods: tuple[str, ...]
    protocol: str
    handler: Mapping[str, Any]
    policies: tuple[Policy, ...] = ()
    reserved_override: bool = False
    timeouts: Timeouts = Timeouts()
    preserve_host: bool = False
    """Whether the upstream receives the caller's ``Host`` and not its own."""
    rewrite_location: bool = True
    """Whether URLs in the head of a response that name the upstream are rewritten to name the gateway."""
    keeps_encoded_slashes: bool = False
    """Whether ``%2F`` in a segment passes to the upstream as it is; otherwise such a path is refused."""
    keeps_authorization: bool = False
    """Whether an ``Authorization`` header that is no credential of the gateway passes to the upstream."""
    idempotency: bool = False
    """Whether ``Idempotency-Key`` is honoured on ``POST``."""
    compression: bool = False
    """Whether callers may compress the messages of their WebSockets."""
    sealed_credential: str = ""
    """The upstream's own credential, encrypted for :func:`credential_purpose`; empty: none."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A named, durable log of events at an address (a template where it has ``{parameters}``)."""

    address: str
    stream: str
    subject: str
    title: str = ""
    schema: Mapping[str, Any] | None = None
    on_invalid: str = "reject"
    retention: Mapping[str, Any] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    subject_of_schema: str = ""
    """The subject of the registry that its schema refers to, if any."""
    content_type: str = JSON
    """What its events are: ``json``, ``text``, ``bytes`` or a media type."""
    values: Mapping[str, Mapping[str, None]] = field(default_factory=dict)
    """The values that a parameter of the address may have, for each parameter that is restricted."""
    subject_prefix: str = ""
    """What the subjects of its events begin with in its stream; empty if an earlier version created the channel."""
    template: Template = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", Template.parse(self.address))

    @property
    def media_type(self) -> str:
        """The media type of an event whose publisher names none."""
        return media_type_of(self.content_type)

    def stored(self, subject_filter: str) -> str:
        """Return the subject filter, in its stream, of the events that a filter of addresses matches."""
        return self.subject_prefix + subject_filter

    def document(self) -> dict[str, Any]:
        """Return the document that its stream is created from."""
        return {
            "address": self.address,
            "stream": self.stream,
            "subject": self.subject,
            "subject_prefix": self.subject_prefix,
            "title": self.title,
            "retention": dict(self.retention),
        }


@dataclass(frozen=True, slots=True)
class Connector:
    """Another broker as a source or a sink of a channel."""

    id: str
    name: str
    type: str
    direction: str
    channel: str
    options: Mapping[str, Any] = field(default_factory=dict)
    address: str = ""
    """Where a source publishes, with ``{placeholders}`` filled from each record; empty: the channel's own address."""
    start: str = "latest"
    """Where a sink begins on its first start."""
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class Tier:
    """A named set of limits, and the ceiling of its consumers' scopes."""

    name: str
    limits: tuple[Limit, ...] = ()
    scopes: tuple[str, ...] | None = None
    """None if they restrict nothing."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """An API consumer."""

    name: str
    tier: str
    limits: tuple[Limit, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class Key:
    """An API key of a consumer. Of its secret, only the digest is stored."""

    id: str
    consumer: str
    digest: str
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    revoked_at: float | None = None
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of tokens that are used instead of keys (docs/identity.md)."""

    name: str
    issuer: str
    """The exact ``iss`` of its tokens."""
    jwks_url: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256",)
    consumer_claim: str = "sub"


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """An active consumer in its tier, and the limits that follow from both."""

    consumer: Consumer
    tier: Tier
    limits: tuple[Limit, ...]


def _limit(document: Mapping[str, Any]) -> Limit:
    per, close_at = document.get("per"), document.get("close_at")
    amount = float(document["amount"])
    return Limit(
        metric=Metric(document["metric"]),
        amount=amount,
        per=float(per) if isinstance(per, int | float) else per,
        burst=float(document.get("burst") or amount),
        scope=document.get("scope") or "consumer",
        exceed=document.get("exceed") or "reject",
        mode=document.get("mode") or "enforce",
        close_at=20.0 if close_at is None else float(close_at),
        fail=document.get("fail") or "open",
    )


def _limits(document: Mapping[str, Any]) -> tuple[Limit, ...]:
    return tuple(_limit(limit) for limit in document.get("limits") or ())


def _tier(document: Mapping[str, Any]) -> Tier:
    return Tier(document["name"], _limits(document), _ceiling(document.get("scopes")))


def _ceiling(scopes: Sequence[str] | None) -> tuple[str, ...] | None:
    if scopes is None or "*" in scopes or EVERY_SCOPE.issubset(scopes):
        return None
    return tuple(scopes)


def _consumer(document: Mapping[str, Any]) -> Consumer:
    return Consumer(
        document["name"],
        document["tier"],
        _limits(document),
        document.get("metadata") or {},
        bool(document.get("is_active", True)),
    )


def _key(document: Mapping[str, Any]) -> Key:
    return Key(
        id=document["id"],
        consumer=document["consumer"],
        digest=document["digest"],
        scopes=tuple(document.get("scopes") or ()),
        expires_at=document.get("expires_at"),
        revoked_at=document.get("revoked_at"),
        allowed_ips=tuple(ip_network(network, strict=False) for network in document.get("allowed_ips") or ()),
        allowed_origins=tuple(document.get("allowed_origins") or ()),
        limits=_limits(document),
        metadata=document.get("metadata") or {},
    )


def _route(document: Mapping[str, Any]) -> Route:
    return Route(
        name=document["name"],
        path=document["path"],
        methods=tuple(document.get("methods") or ()),
        protocol=document["protocol"],
        handler=document["handler"],
        policies=tuple(
            Policy(policy["type"], policy.get("options") or {}, policy.get("mode") or "enforce")
            for policy in document.get("policies") or ()
        ),
        reserved_override=bool(document.get("reserved_override")),
        timeouts=Timeouts(**(document.get("timeouts") or {})),
        preserve_host=bool(document.get("preserve_host")),
        rewrite_location=bool(document.get("rewrite_location", True)),
        keeps_encoded_slashes=_keeps_encoded_slashes(document),
        keeps_authorization=document.get("upstream_authorization") == "keep",
        idempotency=bool(document.get("idempotency")),
        compression=bool(document.get("compression")),
        sealed_credential=document.get("sealed_credential") or "",
    )


def _keeps_encoded_slashes(document: Mapping[str, Any]) -> bool:
    """Return what the route wants; by default they are kept where a catch-all parameter takes slashes anyway."""
    wanted = document.get("encoded_slashes") or ("keep" if document["path"].endswith("...}") else "refuse")
    return bool(wanted == "keep")


def credential_purpose(route_name: str) -> str:
    """Return the purpose for which the upstream credential of a route is encrypted."""
    return f"upstream credential of route {route_name}"


def _channel(document: Mapping[str, Any]) -> Channel:
    return Channel(
        address=document["address"],
        stream=document["stream"],
        subject=document["subject"],
        subject_prefix=document.get("subject_prefix") or "",
        title=document.get("title") or "",
        schema=document.get("schema"),
        on_invalid=document.get("on_invalid") or "reject",
        retention=document.get("retention") or {},
        protocols=tuple(document.get("protocols") or ()),
        subject_of_schema=subject_named(document.get("schema")),
        content_type=document.get("content_type") or JSON,
        values={
            name: dict.fromkeys(parameter["enum"]) for name, parameter in (document.get("parameters") or {}).items()
        },
    )


def _latest(document: Mapping[str, Any]) -> Latest | None:
    latest = document["latest"]
    if latest is None:
        return None
    references = tuple((name, text) for name, text in latest["references"])
    return Latest(
        document["name"],
        latest["version"],
        latest["id"],
        latest["type"],
        latest["schema"],
        references,
        document.get("compatibility") or "",
        document.get("mode") or "",
    )


def _algorithms(names: Any) -> tuple[str, ...]:
    if not names or not all(name in ALGORITHMS for name in names):
        raise ValueError(f"an issuer's algorithms must be among {', '.join(ALGORITHMS)}")
    return tuple(names)


def _issuer(document: Mapping[str, Any]) -> Issuer:
    return Issuer(
        name=document["name"],
        issuer=document["issuer"],
        jwks_url=document["jwks_url"],
        audience=document["audience"],
        algorithms=_algorithms(document["algorithms"]),
        consumer_claim=document["consumer_claim"],
    )


def _connector(document: Mapping[str, Any]) -> Connector:
    return Connector(
        id=document["id"],
        name=document["name"],
        type=document["type"],
        direction=document["direction"],
        channel=document["channel"],
        options=document.get("options") or {},
        address=document.get("address") or "",
        start=document.get("start") or "latest",
        is_active=bool(document.get("is_active", True)),
    )


READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "tier": _tier,
    "consumer": _consumer,
    "key": _key,
    "route": _route,
    "channel": _channel,
    "subscription": subscriptions.read,
    "schema": _latest,
    "issuer": _issuer,
    "connector": _connector,
}
