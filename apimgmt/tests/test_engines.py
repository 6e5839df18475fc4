import socket
import stat
from pathlib import Path

import pytest

from apimgmt import engines


def test_passwords_are_in_private_files_and_not_on_the_command_line(tmp_path):
    made = [
        engines.redis(tmp_path, 7001, "valkey-password"),
        engines.nats(tmp_path, 7002, "nats-user", "nats-password", "1s"),
    ]
    for engine, secret in zip(made, ("valkey-password", "nats-password"), strict=True):
        assert secret not in " ".join(engine.command)
        assert secret in engine.url
    for path in (tmp_path / "valkey" / "valkey.conf", tmp_path / "nats" / "server.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("sync", ["always", "1s", "500ms", "2m"])
def test_the_log_is_synced_as_told(tmp_path, sync):
    engines.nats(tmp_path, 7002, "user", "password", sync)
    assert f"sync_interval: {sync}," in (tmp_path / "nats" / "server.conf").read_text()


def test_no_share_of_the_disk_bounds_how_many_channels_there_are(tmp_path):
    """Each stream reserves its retention; NATS itself would stop at three quarters of what is free."""
    engines.nats(tmp_path, 7002, "user", "password", "1s")
    assert "max_file_store: 1PB" in (tmp_path / "nats" / "server.conf").read_text()


@pytest.mark.parametrize("sync", ["", "never", "1", "0s", "1s }", "1s\nmax_payload: 1"])
def test_what_is_no_interval_is_refused(tmp_path, sync):
    with pytest.raises(ValueError, match="neither"):
        engines.nats(tmp_path, 7002, "user", "password", sync)


def test_a_port_that_is_free_is_kept_and_one_that_is_taken_is_not():
    with engines.listen() as taken:
        port = taken.getsockname()[1]
        assert engines.free_port(port) != port
    assert engines.free_port(port) == port


def test_no_outgoing_connection_can_take_the_port_of_an_engine_that_is_away():
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(engines.free_port() < first_of_clients for _ in range(20))


def test_engines_listen_on_loopback_alone(redis_url, nats_url):
    for url in (redis_url, nats_url):
        port = int(url.rpartition("@")[2].partition(":")[2].partition("/")[0])
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # free, as it would not be were the engine bound to every address


def test_a_program_that_is_too_old_is_not_taken(tmp_path, monkeypatch):
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o755)
    monkeypatch.setattr(engines.sys, "executable", str(tmp_path / "elsewhere" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engines.EngineMissing, match=r"2\.10"):
        engines.nats(tmp_path, 7002, "user", "password", "1s")
    old.write_text("#!/bin/sh\necho nats-server: v2.10.1\n")
    assert engines.nats(tmp_path, 7002, "user", "password", "1s").command[0] == str(old)
