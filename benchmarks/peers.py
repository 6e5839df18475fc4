"""Envoy and nginx as governed proxies: a key is checked and a rate limit is counted, as we do."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
KEY = "bench-key-of-a-peer"
START_TIMEOUT_S = 10

UPSTREAM_CONF = """
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log {folder}/upstream.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/json;
    location / {{ return 200 '{{"symbol":"ACME","price":104.2,"at":1795469806.4}}'; }} }} }}
"""
NGINX_CONF = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_x_api_key $consumer {{ default ""; "{key}" bench; }}
  limit_req_zone $consumer zone=all:1m rate=1000000r/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ if ($consumer = "") {{ return 401; }} limit_req zone=all burst=100000 nodelay;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Consumer $consumer; proxy_pass http://up; }} }} }}
"""
ENVOY_CONF = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: up}}}}]}}
          http_filters:
          - name: envoy.filters.http.api_key_auth
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth
              credentials: [{{key: {key}, client: bench}}]
              key_sources: [{{header: X-API-Key}}]
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: limit
              token_bucket: {{max_tokens: 100000000, tokens_per_fill: 100000000, fill_interval: 1s}}
              filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
              filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that takes governed requests."""

    name: str
    url: str
    key: str
    pids: tuple[int, ...] = ()


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[int]:
    """Run the upstream that all proxies share, beside the load; gives its port."""
    port = free_port()
    with _nginx(UPSTREAM_CONF.format(folder=folder, port=port), folder / "upstream.conf", port, LOAD_CORE):
        yield port


@contextlib.contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Peer]:
    """Run nginx with a key map and ``limit_req``."""
    port = free_port()
    conf = NGINX_CONF.format(folder=folder, port=port, upstream=upstream_port, key=KEY)
    with _nginx(conf, folder / "nginx.conf", port, SERVER_CORE):
        yield Peer("nginx", f"http://127.0.0.1:{port}/quotes/ACME", KEY)


@contextlib.contextmanager
def envoy(folder: Path, upstream_port: int) -> Iterator[Peer]:
    """Run Envoy with ``api_key_auth`` and ``local_ratelimit``, one worker."""
    port, conf = free_port(), folder / "envoy.yaml"
    conf.write_text(ENVOY_CONF.format(port=port, upstream=upstream_port, key=KEY))
    program = shutil.which("envoy") or str(Path(sys.executable).parent / "envoy")
    with _running(
        [program, "-c", str(conf), "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"], port, SERVER_CORE
    ):
        yield Peer("Envoy", f"http://127.0.0.1:{port}/quotes/ACME", KEY)


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def _nginx(conf: str, path: Path, port: int, core: int) -> contextlib.AbstractContextManager[None]:
    path.write_text(conf)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    return _running([program, "-c", str(path), "-p", str(path.parent)], port, core)


@contextlib.contextmanager
def _running(command: list[str], port: int, core: int) -> Iterator[None]:
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    ends_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")
