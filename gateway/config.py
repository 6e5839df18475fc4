"""What a data-plane process is told at its start; every number is a documented setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one data-plane process; built by ``apimgmt.env.gateway_config``."""

    process: str
    """Unique name of this run of this process: the label in usage and the owner of leases."""
    kind: str
    """``web``, ``mqtt`` or ``amqp``."""
    data_dir: Path
    nats_url: str
    redis_url: str
    key_pepper: bytes
    secret_key: bytes
    """Signs download links."""
    public_url: str
    """``http://127.0.0.1:8000``: the base of absolute links."""
    mqtt_url: str = ""
    """``mqtt://127.0.0.1:1883`` or ``secure-mqtt://…``: where callers find the MQTT listener; empty: nowhere."""
    host: str = "127.0.0.1"
    port: int = 8000
    trusted_proxies: tuple[Network, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    engine_timeout_s: float = 0.5
    head_timeout_s: float = 10
    keep_alive_s: float = 75
    body_rate_floor_bytes_per_s: int = 500
    body_rate_grace_s: float = 5
    send_timeout_s: float = 60
    """How long an answer may wait for a caller that takes nothing of it."""
    head_max_bytes: int = 32 * 1024
    head_max_count: int = 100
    path_max_bytes: int = 8 * 1024
    body_max_bytes: int = 10 * 1024 * 1024
    stream_message_max_bytes: int = 64 * 1024
    proxied_message_max_bytes: int = 1024 * 1024
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
    """One try in all: name, connection, request, answer."""
    drain_s: float = 30
    failed_keys_per_minute: int = 20
    json_depth_max: int = 64
    number_digits_max: int = 400
    ticket_s: int = 30
    trace_start: bool = False
    """Begin a trace for requests that come without one."""
    hook_timeout_s: float = 0.5
    hook_threads: int = 4
    jwks_refresh_s: float = 600
    """How often an issuer's key set is read."""
    jwks_max_age_s: float = 86_400
    """How long its last key set serves while its URL is away."""
    jwks_timeout_s: float = 5
    """How long reading a key set may take in all."""
    jwks_wait_s: float = 3
    """How long a call waits for a key set that is being read."""
    jwks_max_bytes: int = 256 * 1024
    legacy_ratelimit_headers: bool = False
    """Tell limits in ``X-RateLimit-*`` too."""
    outbound_allowed_networks: tuple[Network, ...] = field(default=())
    events_dir: Path | None = None
    """Where the event store keeps its files, if it does on this machine."""
    disk_free_min_bytes: int = 1024**3
    """Publishes are refused where less is free there, or less than a tenth."""

    @property
    def public_scheme(self) -> str:
        """``http`` or ``https``: how callers reach us, which a proxy in front may have chosen."""
        return self.public_url.partition(":")[0]
