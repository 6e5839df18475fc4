"""The plan of a run of `up`, made before Django is loaded, as Django's settings contain the engines' URLs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
import socket
import sys
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from apimgmt import engines, env
from apimgmt.engines import Engine
from apimgmt.launcher.lock import DataDirTaken, take
from apimgmt.secret_store import load_or_create, write_private

READY_FILE = "ready.json"
ENGINES_BEFORE_FILE = "engines.last.json"
"""The URLs of the embedded engines in the previous run, whose ports are used again."""
PORT_MAX = 65_535
FILES_MAX = 2**20


class CannotStart(RuntimeError):
    """`up` cannot start; the text says why and what to do."""


@dataclass(slots=True)
class Plan:
    """The options and reserved resources of a run of `up`."""

    host: str
    port: int
    admin_host: str
    admin_port: int
    mqtt_port: int
    amqp_port: int
    data_dir: Path
    workers: int
    has_demo: bool
    may_show_demo: bool = False
    """Whether the demo's keys may be valid on a public address."""
    engines: list[Engine] = field(default_factory=list)
    web: socket.socket | None = None
    admin: socket.socket | None = None
    mqtt: socket.socket | None = None
    lock: TextIO | None = None

    def release(self) -> None:
        """Close the reserved sockets and the lock."""
        for taken in (self.web, self.admin, self.mqtt, self.lock):
            if taken is not None:
                taken.close()

    @property
    def base_url(self) -> str:
        """The base URL for callers."""
        return env.public_url()

    @property
    def admin_url(self) -> str:
        """Base of the URLs of the operators' pages and the management API."""
        return env.admin_public_url()

    @property
    def local_host(self) -> str:
        """The address at which this machine reaches it."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; each is also an environment variable."""
    parser.add_argument("--host", default=env.text("HOST", "127.0.0.1"), help="address of the data plane (HOST)")
    parser.add_argument("--port", type=int, default=env.number("PORT", 8000), help="HTTP and WebSocket (PORT)")
    parser.add_argument(
        "--admin-host",
        default=env.text("ADMIN_HOST", "127.0.0.1"),
        help="address of the operators' pages and the management API (ADMIN_HOST)",
    )
    parser.add_argument(
        "--admin-port", type=int, default=env.number("ADMIN_PORT", 8001), help="their port (ADMIN_PORT)"
    )
    parser.add_argument("--mqtt-port", type=int, default=env.number("MQTT_PORT", 1883), help="MQTT (MQTT_PORT)")
    parser.add_argument(
        "--amqp-port",
        type=int,
        default=env.number("AMQP_PORT", 5672),
        help="AMQP, if an upstream is configured (AMQP_PORT)",
    )
    parser.add_argument("--data-dir", default=env.text("DATA_DIR", "var"), help="folder of persistent data (DATA_DIR)")
    parser.add_argument("--workers", type=int, default=env.number("WORKERS", 1), help="web processes (WORKERS)")
    parser.add_argument(
        "--no-demo",
        action="store_true",
        default=env.flag("NO_DEMO"),
        help="do not load the demo; on a public address, revoke its keys of earlier runs (NO_DEMO)",
    )
    parser.add_argument(
        "--public-demo",
        action="store_true",
        default=env.flag("PUBLIC_DEMO"),
        help="load the demo on a public address too (PUBLIC_DEMO)",
    )


def reserve(arguments: list[str]) -> Plan:
    """Parse the options, lock the data directory, bind the ports, and write the URLs of the engines.

    Raises CannotStart, naming the option to change, if a port or the data directory is in use.
    """
    parser = argparse.ArgumentParser(prog="manage.py up", add_help=False)
    add_options(parser)
    options, _ = parser.parse_known_args(arguments)
    plan = Plan(
        options.host,
        options.port,
        options.admin_host,
        options.admin_port,
        options.mqtt_port,
        options.amqp_port,
        Path(options.data_dir).absolute(),
        options.workers,
        not options.no_demo,
        options.public_demo,
    )
    try:
        _reserve(plan)
    except BaseException:
        plan.release()
        raise
    return plan


def _reserve(plan: Plan) -> None:
    _check(plan)
    _lock_data_dir(plan)
    plan.web = _listen(plan.host, plan.port, "--port")
    plan.admin = _listen(plan.admin_host, plan.admin_port, "--admin-port", host_option="--admin-host")
    plan.mqtt = _listen(plan.host, plan.mqtt_port, "--mqtt-port")
    plan.port, plan.mqtt_port = plan.web.getsockname()[1], plan.mqtt.getsockname()[1]
    plan.admin_port = plan.admin.getsockname()[1]
    os.environ |= {
        "DATA_DIR": str(plan.data_dir),
        "HOST": plan.host,
        "PORT": str(plan.port),
        "ADMIN_HOST": plan.admin_host,
        "ADMIN_PORT": str(plan.admin_port),
        "MQTT_PORT": str(plan.mqtt_port),
    }
    env.bounds()
    env.publish_retention()
    _place_engines(plan)


def _check(plan: Plan) -> None:
    if plan.workers < 1:
        raise CannotStart("--workers must be at least 1.")
    ports = (
        (plan.port, "--port"),
        (plan.admin_port, "--admin-port"),
        (plan.mqtt_port, "--mqtt-port"),
        (plan.amqp_port, "--amqp-port"),
    )
    for port, option in ports:
        if not 0 <= port <= PORT_MAX:
            raise CannotStart(f"{option} must be from 0 (any free port) to {PORT_MAX}.")
    if plan.has_demo and not plan.may_show_demo and (public := public_addresses(plan)):
        raise CannotStart(
            f"The demo would be public ({', '.join(public)}): its keys may call and publish everything. Start with "
            "--no-demo, or with --public-demo if that is what you want."
        )


def public_addresses(plan: Plan) -> list[str]:
    """Return the options and settings that make a run reachable from other machines, with their values."""
    urls = {name: env.text(name) for name in ("PUBLIC_URL", "ADMIN_PUBLIC_URL", "MQTT_PUBLIC_URL")}
    hosts = {name: (url, urlsplit(url).hostname or url) for name, url in urls.items() if url}
    hosts |= {"--host": (plan.host, plan.host), "--admin-host": (plan.admin_host, plan.admin_host)}
    return [f"{name} {value or 'for all addresses'}" for name, (value, host) in hosts.items() if not _is_local(host)]


def _is_local(host: str) -> bool:
    """Return whether only this machine reaches a host; any name but ``localhost`` may be public."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _lock_data_dir(plan: Plan) -> None:
    try:
        plan.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        plan.lock = take(plan.data_dir)
        (plan.data_dir / READY_FILE).unlink(missing_ok=True)  # left behind by an `up` that was killed
    except DataDirTaken as error:
        raise CannotStart(f"{error}; choose another with --data-dir.") from None
    except OSError as error:
        raise CannotStart(
            f"Cannot write to {plan.data_dir} ({error.strerror}); choose another with --data-dir."
        ) from None


def _place_engines(plan: Plan) -> None:
    """Configure each engine without a URL, on its previous port if that is free."""
    secrets = load_or_create(plan.data_dir)
    before = _read(plan.data_dir / ENGINES_BEFORE_FILE) | _read(plan.data_dir / env.ENGINES_FILE)
    urls = {}
    if not env.text("REDIS_URL"):
        port = engines.free_port(urlsplit(before.get("REDIS_URL", "")).port or 0)
        plan.engines.append(engines.redis(plan.data_dir, port, secrets["redis_password"]))
        urls["REDIS_URL"] = plan.engines[-1].url
    if not env.text("NATS_URL"):
        port = engines.free_port(urlsplit(before.get("NATS_URL", "")).port or 0)
        user, password, sync = secrets["nats_user"], secrets["nats_password"], env.text("EVENTS_SYNC", "1s")
        try:
            plan.engines.append(engines.nats(plan.data_dir, port, user, password, sync))
        except ValueError as error:
            raise CannotStart(f"EVENTS_SYNC: {error}.") from None
        urls["NATS_URL"] = plan.engines[-1].url
    write_private(plan.data_dir / env.ENGINES_FILE, json.dumps(urls, indent=1))


def _listen(host: str, port: int, option: str, *, host_option: str = "--host") -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(4096)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"Port {port} on {host} is in use; choose another with {option}.") from None
        raise CannotStart(
            f"Cannot listen on {host}:{port} ({error.strerror}); choose another with {host_option} or {option}."
        ) from None
    listening.setblocking(False)
    return listening


def _read(path: Path) -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        urls: dict[str, str] = json.loads(path.read_text())
        return urls
    return {}


def allow_open_files() -> None:
    """Raise the limit of open files to the hard limit, as each connection and each stream needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Programs that close every possible file would take minutes with more.
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft == resource.RLIM_INFINITY or soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


reserved: list[Plan] = []
"""The plan of this process, once its ports and its data directory are reserved."""


def reserve_for_up() -> None:
    """Reserve resources if the command line is `manage.py up`; exits with a message if that fails."""
    if sys.argv[1:2] != ["up"] or {"-h", "--help"} & set(sys.argv):
        return
    os.umask(0o077)
    allow_open_files()
    try:
        reserved.append(reserve(sys.argv[2:]))
    except (CannotStart, engines.EngineMissing, env.InvalidSetting) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None
