import json
import os
import socket
import subprocess
import sys
import time

import pytest

from apimgmt.env import InvalidSetting
from apimgmt.launcher import lock, plan


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("DATA_DIR", "HOST", "PORT", "ADMIN_HOST", "ADMIN_PORT", "MQTT_PORT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # put back after the test
        monkeypatch.delenv(name)


@pytest.fixture
def reserve(tmp_path):
    """Reserve as `up` does, on free ports unless said; what was taken is given back."""
    made = []

    def reserved(*options):
        defaults = ("--port", "0", "--admin-port", "0", "--mqtt-port", "0", "--data-dir", str(tmp_path / "var"))
        made.append(plan.reserve([*defaults, *options]))
        return made[-1]

    yield reserved
    for one in made:
        one.release()


def test_ports_are_taken_before_anything_starts(reserve):
    one = reserve()
    assert one.port == one.web.getsockname()[1] != 0
    assert one.admin_port == one.admin.getsockname()[1] != 0
    assert one.mqtt_port == one.mqtt.getsockname()[1] != 0
    assert one.base_url == f"http://127.0.0.1:{one.port}"
    assert one.admin_url == f"http://127.0.0.1:{one.admin_port}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "gw.example", "0"])
@pytest.mark.parametrize("option", ["--host", "--admin-host"])
def test_a_public_address_with_the_demo_is_refused_with_both_ways_out(reserve, option, host):
    with pytest.raises(plan.CannotStart, match=rf"public \({option} {host}\).*--no-demo.*--public-demo"):
        reserve(option, host)


@pytest.mark.parametrize("name", ["PUBLIC_URL", "ADMIN_PUBLIC_URL", "MQTT_PUBLIC_URL"])
def test_a_public_url_with_the_demo_is_refused(reserve, monkeypatch, name):
    monkeypatch.setenv(name, "https://gw.example")
    with pytest.raises(plan.CannotStart, match=rf"public \({name} https://gw.example\)"):
        reserve()
    monkeypatch.setenv(name, "https://localhost:8443")
    assert reserve().has_demo


def test_a_public_address_starts_without_the_demo_or_where_it_is_wanted(reserve, monkeypatch, tmp_path):
    assert not reserve("--host", "0.0.0.0", "--no-demo").has_demo
    assert reserve("--host", "0.0.0.0", "--public-demo", "--data-dir", str(tmp_path / "b")).has_demo
    monkeypatch.setenv("PUBLIC_DEMO", "1")
    assert reserve("--host", "0.0.0.0", "--data-dir", str(tmp_path / "c")).has_demo


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost"])
def test_loopback_is_not_public(reserve, host):
    assert reserve("--host", host, "--admin-host", host).has_demo


@pytest.mark.parametrize("option", ["--port", "--admin-port", "--mqtt-port"])
def test_a_taken_port_names_its_option(reserve, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = rf"Port {port} on 127.0.0.1 is in use; choose another with {option}\."
        with pytest.raises(plan.CannotStart, match=message):
            reserve(option, str(port))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--workers", "0"), "--workers must be at least 1"),
        (("--port", "65536"), "--port must be from 0"),
        (("--admin-port", "-1"), "--admin-port must be from 0"),
        (("--admin-host", "192.0.2.1", "--no-demo"), "choose another with --admin-host or --admin-port"),
        (("--mqtt-port", "-1"), "--mqtt-port must be from 0"),
        (("--host", "192.0.2.1", "--no-demo"), "choose another with --host or --port"),
        (("--data-dir", "/proc/nowhere"), "choose another with --data-dir"),
    ],
)
def test_what_cannot_be_is_said_with_its_option(reserve, options, fault):
    with pytest.raises(plan.CannotStart, match=fault):
        reserve(*options)


def test_a_wrong_setting_is_found_before_anything_starts(reserve, monkeypatch):
    monkeypatch.setenv("HEAD_TIMEOUT_S", "soon")
    with pytest.raises(InvalidSetting, match="HEAD_TIMEOUT_S"):
        reserve()


def test_a_wrong_interval_is_found_before_anything_starts(reserve, monkeypatch):
    monkeypatch.setenv("EVENTS_SYNC", "sometimes")
    with pytest.raises(plan.CannotStart, match="EVENTS_SYNC"):
        reserve()


def test_a_data_directory_has_one_up(reserve):
    reserve()
    with pytest.raises(plan.CannotStart, match=rf"process {os.getpid()}\) is running with .*--data-dir"):
        reserve()


def test_what_a_killed_up_left_is_waited_for_and_cleared(reserve, tmp_path):
    data_dir = tmp_path / "var"
    data_dir.mkdir()
    (data_dir / "ready.json").write_text("stale")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (data_dir / "up.lock").write_text(str(ended.pid))
    leftover = subprocess.Popen(
        [
            sys.executable, "-c",
            "import fcntl, sys, time; fcntl.flock(open(sys.argv[1]), 2); print(flush=True); time.sleep(0.5)",
            str(data_dir / "up.lock"),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    leftover.stdout.readline()  # it has the lock
    reserve()
    assert leftover.wait() == 0
    leftover.stdout.close()
    assert not (data_dir / "ready.json").exists()


def test_the_lock_is_not_given_while_a_leftover_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEFTOVERS_WITHIN_S", 0.1)
    with lock.take(tmp_path) as held:
        held.truncate(0)  # whoever holds it is not known
        began_at = time.monotonic()
        with pytest.raises(lock.DataDirTaken, match="unknown"):
            lock.take(tmp_path)
        assert time.monotonic() - began_at >= 0.1


def test_engines_are_where_they_were(reserve, tmp_path):
    first = reserve()
    engines = tmp_path / "var" / "engines.json"
    before = json.loads(engines.read_text())
    assert set(before) == {"REDIS_URL", "NATS_URL"}
    first.release()
    engines.rename(engines.with_name("engines.last.json"))  # as a clean end leaves it
    reserve()
    assert json.loads(engines.read_text()) == before


def test_an_engine_that_a_url_names_is_not_started(reserve, tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("NATS_URL", "nats://elsewhere")
    assert reserve().engines == []
    assert json.loads((tmp_path / "var" / "engines.json").read_text()) == {}
