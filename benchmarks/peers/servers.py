"""Runs each peer with its configuration on the server's core."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from apimgmt.engines import free_port
from benchmarks import issuer
from benchmarks.peers import configurations, programs
from benchmarks.processes import LOAD_CORE, SERVER_CORE, family, running

KEY = "bench-key-of-a-peer"
ANSWER = (
    '{"symbol":"ACME","price":101.25,"currency":"EUR","volume":120000,"at":"2026-01-01T00:00:00Z","ok":1}\n'.strip()
)
LARGE = json.dumps([{"symbol": f"S{number:04}", "price": 101.25, "volume": 1200} for number in range(196)])
POSTED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, and whose CPU time is its own."""

    name: str
    port: int
    pids: tuple[int, ...]
    stores: tuple[int, ...] = ()
    """Further processes that work for it."""
    key: str = KEY
    token_port: int = 0
    """Where it takes callers with JWTs; 0 if it does not."""


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What all proxies proxy to, beside the load."""

    http_port: int
    echo_port: int


@contextlib.contextmanager
def upstreams(folder: Path) -> Iterator[Upstreams]:
    """Run the upstreams: nginx answers HTTP, and a server of picows returns WebSocket messages."""
    files = folder / "files"
    (files / "large").mkdir(parents=True)
    (files / "large" / "quotes").write_text(LARGE)
    (files / "jwks.json").write_text(issuer.key_set())
    files.chmod(0o755)
    folder.chmod(0o755)  # nginx's worker is another user
    port, echo_port, conf = free_port(), free_port(), folder / "upstream.conf"
    conf.write_text(configurations.UPSTREAM.format(folder=folder, port=port, answer=ANSWER, posted=POSTED_BYTES))
    echo = [sys.executable, "-m", "benchmarks.loads.echo_server", str(echo_port)]
    nginx = [programs.find("nginx"), "-c", str(conf), "-p", str(folder)]
    with running(nginx, port, LOAD_CORE), running(echo, echo_port, LOAD_CORE):
        yield Upstreams(port, echo_port)


@contextlib.contextmanager
def nginx(folder: Path, to: Upstreams) -> Iterator[Server]:
    """Run nginx with a key map and ``limit_req``."""
    port, conf = free_port(), folder / "nginx.conf"
    conf.write_text(
        configurations.NGINX.format(folder=folder, port=port, upstream=to.http_port, echo=to.echo_port, key=KEY)
    )
    with running([programs.find("nginx"), "-c", str(conf), "-p", str(folder)], port, SERVER_CORE) as pid:
        yield Server("nginx", port, tuple(family(pid)))


@contextlib.contextmanager
def envoy(folder: Path, to: Upstreams) -> Iterator[Server]:
    """Run Envoy with ``api_key_auth`` and ``local_ratelimit``, and another with ``jwt_authn``, with a worker each."""
    by_key = configurations.ENVOY_KEY.format(key=KEY)
    by_token = configurations.ENVOY_JWT.format(issuer=issuer.ISSUER, audience=issuer.AUDIENCE, folder=folder)
    with _envoy(folder, to, by_key) as (port, pids), _envoy(folder, to, by_token) as (token_port, token_pids):
        yield Server("Envoy", port, (*pids, *token_pids), token_port=token_port)


@contextlib.contextmanager
def haproxy(folder: Path, to: Upstreams) -> Iterator[Server]:
    """Run HAProxy with one thread, a key, a stick table of request rates and ``jwt_verify``."""
    port, token_port, conf = free_port(), free_port(), folder / "haproxy.cfg"
    (folder / "idp.pem").write_bytes(issuer.public_pem())
    conf.write_text(
        configurations.HAPROXY.format(
            port=port, token_port=token_port, upstream=to.http_port, echo=to.echo_port, key=KEY, folder=folder
        )
    )
    with running([programs.find("HAProxy"), "-db", "-f", str(conf)], port, SERVER_CORE) as pid:
        yield Server("HAProxy", port, tuple(family(pid)), token_port=token_port)


@contextlib.contextmanager
def caddy(folder: Path, to: Upstreams) -> Iterator[Server]:
    """Run Caddy with a key; it has no limits of its own."""
    port, conf = free_port(), folder / "Caddyfile"
    conf.write_text(configurations.CADDY.format(port=port, upstream=to.http_port, echo=to.echo_port, key=KEY))
    command = [
        "env",
        f"XDG_CONFIG_HOME={folder}",
        programs.find("Caddy"),
        "run",
        "--config",
        str(conf),
        "--adapter",
        "caddyfile",
    ]
    with running(command, port, SERVER_CORE) as pid:
        yield Server("Caddy", port, tuple(family(pid)))


@contextlib.contextmanager
def mosquitto(folder: Path, _: Upstreams) -> Iterator[Server]:
    """Run Mosquitto; it checks no credentials."""
    port, conf = free_port(), folder / "mosquitto.conf"
    conf.write_text(configurations.MOSQUITTO.format(port=port))
    with running([programs.find("Mosquitto"), "-c", str(conf)], port, SERVER_CORE) as pid:
        yield Server("Mosquitto", port, tuple(family(pid)))


@contextlib.contextmanager
def centrifuge(_: Path, __: Upstreams) -> Iterator[Server]:
    """Run a centrifuge server with its broker in memory."""
    port = free_port()
    with running([programs.centrifuge(), f"127.0.0.1:{port}"], port, SERVER_CORE) as pid:
        yield Server("centrifuge", port, tuple(family(pid)))


STARTS: dict[str, Callable[[Path, Upstreams], contextlib.AbstractContextManager[Server]]] = {
    "Envoy": envoy,
    "nginx": nginx,
    "HAProxy": haproxy,
    "Caddy": caddy,
    "Mosquitto": mosquitto,
    "centrifuge": centrifuge,
}


@contextlib.contextmanager
def _envoy(folder: Path, to: Upstreams, authentication: str) -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    conf = folder / f"envoy-{port}.yaml"
    conf.write_text(
        configurations.ENVOY.format(
            port=port, upstream=to.http_port, echo=to.echo_port, authentication=authentication.strip("\n")
        )
    )
    command = [programs.find("Envoy"), "-c", str(conf), "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"]
    with running(command, port, SERVER_CORE) as pid:
        yield port, family(pid)
