"""Typed readers of environment variables. Does not import Django, so that every process can use it first."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from accounts.oidc.provider_settings import ProviderSettings
from apimgmt.kept import Retention
from apimgmt.secret_store import load_or_create, write_private
from gateway.config import Config, Network

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"", "0", "false", "no", "off"})
ENGINES_FILE = "engines.json"
"""The URLs of the embedded engines, while they run."""
BOUND_MAX = 2**40
DAYS_MAX = 36_500
RETENTION = "RETENTION_"
RETENTION_FILE = "retention.json"
"""The ``RETENTION_*`` settings of the last ``up``."""
POSTGRES_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
LISTENERS_OF_CALLERS = frozenset({"web", "mqtt"})
"""Processes whose listeners a proxy may reach by the PROXY protocol."""


class InvalidSetting(ValueError):
    """An environment variable has an invalid value; the text names the variable and what is expected."""


def text(name: str, default: str = "") -> str:
    """Return a variable as text."""
    return os.environ.get(name, default)


def number(name: str, default: int) -> int:
    """Return a variable as a whole number. Raises InvalidSetting."""
    return _whole(name, os.environ.get(name, ""), default)


def _whole(name: str, value: str, default: int) -> int:
    try:
        return int(value) if value else default
    except ValueError:
        raise InvalidSetting(f"{name} is {value!r}; it must be a whole number.") from None


def positive(name: str, default: int) -> int:
    """Return a variable as a whole number of at least 1. Raises InvalidSetting."""
    value = number(name, default)
    if not 0 < value < BOUND_MAX:
        raise InvalidSetting(f"{name} is {value}; it must be at least 1 and less than {BOUND_MAX}.")
    return value


def seconds(name: str, default: float) -> float:
    """Return a variable as a number. Raises InvalidSetting."""
    value = os.environ.get(name, "")
    try:
        return float(value) if value else default
    except ValueError:
        raise InvalidSetting(f"{name} is {value!r}; it must be a number.") from None


def flag(name: str, *, default: bool = False) -> bool:
    """Return a variable as a boolean. Raises InvalidSetting."""
    value = os.environ.get(name)
    if value is None:
        return default
    if value.lower() in TRUE | FALSE:
        return value.lower() in TRUE
    raise InvalidSetting(f"{name} is {value!r}; it must be one of 1, 0, true, false, yes, no, on, off.")


def names(name: str, default: str = "") -> list[str]:
    """Return a variable as a comma-separated list."""
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def networks(name: str) -> tuple[Network, ...]:
    """Return a variable as a comma-separated list of networks in CIDR notation. Raises InvalidSetting."""
    try:
        return tuple(ip_network(part, strict=False) for part in names(name))
    except ValueError as error:
        raise InvalidSetting(f"{name}: {error}.") from None


def data_dir() -> Path:
    """Return the folder of persistent data (``DATA_DIR``, by default ``var``)."""
    return Path(text("DATA_DIR", "var")).absolute()


def engine_url(name: str) -> str:
    """Return an engine's URL: from the environment, else of the embedded engine of a running ``up``; empty if none."""
    if url := text(name):
        return url
    try:
        return cast("str", json.loads((data_dir() / ENGINES_FILE).read_text()).get(name, ""))
    except (FileNotFoundError, json.JSONDecodeError):
        return ""


def postgres_options(query: str) -> dict[str, str]:
    """Return the options of TLS in the query of DATABASE_URL. Raises InvalidSetting for any other: none is ignored."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := [name for name in options if name not in POSTGRES_OPTIONS]:
        raise InvalidSetting(f"DATABASE_URL has the option {unknown[0]}; it may have {', '.join(POSTGRES_OPTIONS)}.")
    return options


def secret(name: str) -> str:
    """Return a secret: from the environment, else the one generated for this data directory."""
    return text(name) or load_or_create(data_dir())[name.lower()]


def public_url() -> str:
    """Return the URL of the data plane as callers see it, without a trailing slash (``PUBLIC_URL``)."""
    return text("PUBLIC_URL", _local_url(text("HOST", "127.0.0.1"), number("PORT", 8000))).rstrip("/")


def admin_public_url() -> str:
    """Return the URL of the operators' pages as browsers see it, without a trailing slash (``ADMIN_PUBLIC_URL``)."""
    local = _local_url(text("ADMIN_HOST", "127.0.0.1"), number("ADMIN_PORT", 8001))
    return text("ADMIN_PUBLIC_URL", local).rstrip("/")


def _local_url(host: str, port: int) -> str:
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def mqtt_url() -> str:
    """Return the URL of the MQTT listener for callers (``MQTT_PUBLIC_URL``)."""
    return text("MQTT_PUBLIC_URL", f"mqtt://{public_host()}:{number('MQTT_PORT', 1883)}").rstrip("/")


def public_host() -> str:
    """Return the host of the data plane's URL, in the syntax of a Host header."""
    return _host_of(public_url())


def admin_public_host() -> str:
    """Return the host of the URL of the operators' pages, in the syntax of a Host header."""
    return _host_of(admin_public_url())


def _host_of(url: str) -> str:
    host = urlsplit(url).hostname or "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def redis_database(url: str, database: int) -> str:
    """Return the URL of another database of the same Redis; unchanged if the URL names a database itself."""
    parts = urlsplit(url)
    return parts._replace(path=f"/{database}").geturl() if url and parts.path in ("", "/", "/0") else url


def bounds() -> dict[str, float]:
    """Return every numeric field of Config, read from the variable of the same name in capitals.

    Raises InvalidSetting.
    """
    values: dict[str, float] = {}
    for field in fields(Config):
        if field.type not in ("int", "float") or field.name == "port":
            continue
        name, default = field.name.upper(), cast("int", field.default)
        value = number(name, default) if field.type == "int" else seconds(name, default)
        if not 0 < value < BOUND_MAX:
            raise InvalidSetting(f"{name} is {value}; it must be greater than 0 and less than {BOUND_MAX}.")
        values[field.name] = value
    return values


def retention() -> Retention:
    """Return the bounds of what is kept. Raises InvalidSetting."""
    values = {}
    for field in fields(Retention):
        name = f"{RETENTION}{field.name.upper()}"
        values[field.name] = value = _whole(name, retention_text(name), cast("int", field.default))
        most = DAYS_MAX if name.endswith("_DAYS") else BOUND_MAX
        if not 0 <= value <= most:
            raise InvalidSetting(f"{name} is {value}; it must be from 0 (no such bound) to {most}.")
    return Retention(**values)


def retention_text(name: str) -> str:
    """Return a variable, from the environment or else that of the last ``up`` in this data directory.

    A command in another shell must not delete what ``up`` was started to keep.
    """
    if name in os.environ:
        return os.environ[name]
    try:
        return cast("str", json.loads((data_dir() / RETENTION_FILE).read_text()).get(name, ""))
    except (FileNotFoundError, json.JSONDecodeError):
        return ""


def publish_retention() -> None:
    """Write the bounds of this environment for commands that run beside ``up``. Raises InvalidSetting."""
    named = {name: value for name, value in os.environ.items() if name.startswith(RETENTION)}
    write_private(data_dir() / RETENTION_FILE, json.dumps(named, indent=1))
    retention()


def oidc() -> ProviderSettings | None:
    """Return the OpenID Connect provider of operators, or None if ``OIDC_ISSUER`` is not set. Raises InvalidSetting."""
    if not text("OIDC_ISSUER"):
        return None
    pairs = [pair.partition("=") for pair in names("OIDC_GROUPS")]
    provider = ProviderSettings(
        issuer=text("OIDC_ISSUER"),
        client_id=text("OIDC_CLIENT_ID"),
        client_secret=text("OIDC_CLIENT_SECRET"),
        name=text("OIDC_NAME", "single sign-on"),
        redirect_uri=f"{admin_public_url()}/dashboards/oidc/callback",
        scopes=tuple(text("OIDC_SCOPES", "openid email profile").split()),
        algorithms=tuple(names("OIDC_ALGORITHMS", "RS256")),
        groups_claim=text("OIDC_GROUPS_CLAIM", "groups"),
        allowed_groups=frozenset(names("OIDC_ALLOWED_GROUPS")),
        allowed_emails=frozenset(email.lower() for email in names("OIDC_ALLOWED_EMAILS")),
        superuser_groups=frozenset(names("OIDC_SUPERUSER_GROUPS")),
        groups=MappingProxyType({group.strip(): name.strip() for group, _, name in pairs}),
        creates_accounts=flag("OIDC_CREATE_ACCOUNTS"),
        links_by_email=flag("OIDC_LINK_BY_EMAIL"),
    )
    faults = [
        *provider.faults(),
        *(f"OIDC_GROUPS: {group} has no group after =." for group, _, name in pairs if not name),
    ]
    if faults:
        raise InvalidSetting(" ".join(faults))
    return provider


def memory_max_bytes() -> int | None:
    """Return the memory budget of each listening process (``MEMORY_MAX_BYTES``), or None. Raises InvalidSetting."""
    if not text("MEMORY_MAX_BYTES"):
        return None
    value = number("MEMORY_MAX_BYTES", 0)
    if not 0 < value < BOUND_MAX:
        raise InvalidSetting(f"MEMORY_MAX_BYTES is {value}; it must be greater than 0 and less than {BOUND_MAX}.")
    return value


def events_dir() -> Path | None:
    """Return the folder of the event store: ``EVENTS_DIR``, or that of the embedded NATS; None if it is elsewhere."""
    folder = text("EVENTS_DIR")
    if folder:
        return Path(folder)
    return None if text("NATS_URL") else data_dir() / "nats"


def own_endpoints() -> frozenset[tuple[str, int]]:
    """Return the hosts and ports of the engines and of the operators' pages, with what the names resolve to."""
    ports = {"NATS_URL": 4222, "REDIS_URL": 6379, "DATABASE_URL": 5432}
    parts = [(urlsplit(engine_url(name)), port) for name, port in ports.items()]
    found = {(url.hostname, url.port or port) for url, port in parts if url.hostname}
    found.add((text("ADMIN_HOST", "127.0.0.1"), number("ADMIN_PORT", 8001)))
    return frozenset(found | {(ip, port) for host, port in found for ip in _resolve(host)})


def _resolve(host: str) -> set[str]:
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def gateway_config(kind: str, number_: int = 1) -> Config:
    """Return the settings of a data-plane process. Raises InvalidSetting, also if there is no NATS or Redis URL."""
    for engine in ("NATS_URL", "REDIS_URL"):
        if not engine_url(engine):
            raise InvalidSetting(f"{engine} is not set, and no `manage.py up` is running with DATA_DIR={data_dir()}.")
    return Config(
        process=f"{kind}-{number_}-{secrets.token_hex(3)}",
        kind=kind,
        data_dir=data_dir(),
        nats_url=engine_url("NATS_URL"),
        redis_url=engine_url("REDIS_URL"),
        key_pepper=secret("KEY_PEPPER").encode(),
        secret_key=secret("SECRET_KEY").encode(),
        public_url=public_url(),
        mqtt_url=mqtt_url(),
        trace_start=flag("TRACE_START"),
        host=text("HOST", "127.0.0.1"),
        port=number("PORT", 8000),
        trusted_proxies=networks("TRUSTED_PROXIES"),
        proxy_protocol_from=networks("PROXY_PROTOCOL_FROM") if kind in LISTENERS_OF_CALLERS else (),
        memory_max_bytes=memory_max_bytes(),
        legacy_ratelimit_headers=flag("LEGACY_RATELIMIT_HEADERS"),
        stream_compression=flag("STREAM_COMPRESSION"),
        outbound_allowed_networks=networks("OUTBOUND_ALLOWED_NETWORKS"),
        own_endpoints=own_endpoints(),
        events_dir=events_dir(),
        **bounds(),  # type: ignore[arg-type] # int if the field is an int
    )
