"""The settings of a data-plane process; every number is a documented setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one data-plane process; built by ``apimgmt.env.gateway_config``."""

    process: str
    """Unique name of this run of the process: its label in usage records and the owner of its leases."""
    kind: str
    """``web``, ``mqtt`` or ``amqp``."""
    data_dir: Path
    nats_url: str
    redis_url: str
    key_pepper: bytes
    secret_key: bytes
    """Key that signs download links."""
    public_url: str
    """Base of absolute links, such as ``http://127.0.0.1:8000``."""
    mqtt_url: str = ""
    """Public URL of the MQTT listener, such as ``mqtt://127.0.0.1:1883`` or ``secure-mqtt://…``; empty if none."""
    host: str = "127.0.0.1"
    port: int = 8000
    trusted_proxies: tuple[Network, ...] = ()
    proxy_protocol_from: tuple[Network, ...] = ()
    """Proxies whose connections to the data plane's listeners begin with a PROXY header."""
    allowed_origins: tuple[str, ...] = ()
    engine_timeout_s: float = 0.5
    head_timeout_s: float = 10
    keep_alive_s: float = 75
    anonymous_keep_alive_s: float = 5
    """The same after a request that proved no credential."""
    anonymous_connections_max: int = 8_192
    """Connections of a process on which no credential is proved, at most a quarter of the files that it may open."""
    anonymous_connections_per_ip: int = 512
    """Those of one IPv4 address or IPv6 /64 that are older than two seconds."""
    body_rate_floor_bytes_per_s: int = 500
    body_rate_grace_s: float = 5
    body_stall_s: float = 15
    """How long a body that was fast before may pause."""
    send_timeout_s: float = 60
    """How long sending may be blocked by a caller that does not read."""
    head_max_bytes: int = 32 * 1024
    head_max_count: int = 100
    path_max_bytes: int = 8 * 1024
    body_max_bytes: int = 10 * 1024 * 1024
    held_bodies_max_bytes: int = 64 * 1024 * 1024
    """Bytes of unfinished request bodies that one consumer may have in the memory of a process."""
    held_bodies_process_max_bytes: int = 256 * 1024 * 1024
    """The same for all consumers together; each may hold no more than is still free."""
    stream_message_max_bytes: int = 64 * 1024
    proxied_message_max_bytes: int = 1024 * 1024
    stream_compression: bool = False
    """Whether WebSockets of channels accept offers of ``permessage-deflate``; a route has a field for it."""
    ping_interval_s: float = 20
    ping_timeout_s: float = 20
    close_timeout_s: float = 5
    mqtt_connect_timeout_s: float = 10
    mqtt_packet_max_bytes: int = 256 * 1024
    send_buffer_max_bytes: int = 1024 * 1024
    send_buffer_max_events: int = 1000
    upstream_connect_timeout_s: float = 5
    upstream_first_byte_timeout_s: float = 30
    upstream_idle_timeout_s: float = 300
    sse_heartbeat_s: float = 15
    webhook_timeout_s: float = 15
    """Limit of one delivery attempt: name resolution, connection, request and response together."""
    drain_s: float = 30
    failed_keys_per_minute: int = 20
    refused_per_minute: int = 6_000
    """Refused calls without a proved credential, and CORS preflights, that one IP address may send."""
    json_depth_max: int = 64
    number_digits_max: int = 400
    ticket_s: int = 30
    ticket_idle_s: int = 300
    """How long a resumable ticket is kept after its last connection has ended."""
    trace_start: bool = False
    """Start a trace for requests without a ``traceparent``."""
    hook_timeout_s: float = 0.5
    hook_threads: int = 4
    jwks_refresh_s: float = 600
    """Interval at which an issuer's key set is fetched."""
    jwks_max_age_s: float = 86_400
    """How long the last key set remains valid while its URL is unavailable."""
    jwks_timeout_s: float = 5
    """Total time limit of fetching a key set."""
    jwks_wait_s: float = 3
    """How long a call waits for a key set that is being fetched."""
    jwks_max_bytes: int = 256 * 1024
    legacy_ratelimit_headers: bool = False
    """Send limits in ``X-RateLimit-*`` headers too."""
    memory_max_bytes: int | None = None
    """The memory budget of a process; None for its share of the machine's memory."""
    outbound_allowed_networks: tuple[Network, ...] = field(default=())
    own_endpoints: frozenset[tuple[str, int]] = frozenset()
    """Hosts and ports of the engines and the operators' pages, which no upstream or webhook may name."""
    events_dir: Path | None = None
    """Directory of the event store's files, if they are on this machine."""
    disk_free_min_bytes: int = 1024**3
    """Publishes are refused if less than this, or less than a tenth, is free on the disk of ``events_dir``."""
    public_scheme: str = field(init=False)
    """Scheme of the public URL, ``http`` or ``https``; a proxy in front may terminate TLS."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "public_scheme", self.public_url.partition(":")[0])
