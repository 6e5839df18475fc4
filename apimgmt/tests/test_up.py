import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.tests.freezing import freeze, thaw
from tests.product import ROOT, Product, eventually, strangers_environment

pytestmark = pytest.mark.xdist_group("up")  # one machine runs one of it at a time
KINDS = ("web", "admin", "worker", "beat", "projector", "delivery", "mqtt", "redis", "nats")
UP = ("apimgmt_process_up", 1)
RESTART_WITHIN_S = 10
"""Far more than the two seconds that are promised, which a loaded machine may not give to a test."""


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """One product that the tests of this module may hurt; each leaves it serving."""
    product = Product(tmp_path_factory.mktemp("up") / "var", "--workers", "2")
    yield product
    product.stop()


def processes(ready):
    return [pid for pids in ready["processes"].values() for pid in pids]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def run_up(*options, **settings):
    """Run `up` where it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "manage.py", "up", *options],
        cwd=ROOT,
        env=strangers_environment() | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ready_json_says_where_everything_is(up):
    ready = up.reread()
    assert ready["base_url"] == f"http://127.0.0.1:{up.port}"
    assert ready["ws_url"] == f"ws://127.0.0.1:{up.port}"
    assert ready["mqtt"] == f"127.0.0.1:{up.mqtt_port}"
    assert ready["amqp"] is None
    assert ready["admin"]["url"] == f"http://127.0.0.1:{up.admin_port}/admin/"
    assert ready["admin"]["api_url"] == f"http://127.0.0.1:{up.admin_port}/api/v1/"
    assert set(ready["keys"]) == {"gold", "free", "bench"}
    assert {kind: len(pids) for kind, pids in ready["processes"].items()} == {
        "web": 2, "admin": 1, "worker": 1, "beat": 1, "projector": 1, "delivery": 1, "connectors": 1, "mqtt": 1,
        "amqp": 0, "redis": 1, "nats": 1, "demo": 2,
    }  # fmt: skip
    assert all(lives(pid) for pid in processes(ready))


def test_what_is_told_is_private(up):
    for name in ("ready.json", "secrets.json", "demo-keys.json", "engines.json", "apimgmt.sqlite3"):
        assert stat.S_IMODE((up.data_dir / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(up.data_dir.stat().st_mode) == 0o700


def test_no_secret_is_in_the_process_list_or_the_logs(up):
    secrets = [*json.loads((up.data_dir / "secrets.json").read_text()).values(), *up.reread()["keys"].values()]
    written = "".join(path.read_text(errors="replace") for path in (up.data_dir / "logs").iterdir())
    for pid in processes(up.ready):
        with contextlib.suppress(OSError):
            written += Path(f"/proc/{pid}/cmdline").read_text()
    assert not [secret for secret in secrets if secret in written]


def test_the_administrator_and_the_keys_open_their_doors(up):
    assert up.admin("GET", "consumers")["results"]
    assert up.call("GET", "/v1/me", key=up.ready["keys"]["gold"])[0] == 200
    assert up.call("GET", "/admin/login/")[0] == 200


def test_it_says_that_it_serves_and_that_its_engines_do(up):
    assert up.call("GET", "/healthz")[0] == 200
    status, _, body = up.call("GET", "/readyz")
    assert (status, body["engines"]) == (200, {"database": "ok", "redis": "ok", "nats": "ok"})


def test_metrics_are_of_every_process_and_do_not_depend_on_analytics(up):
    assert up.call("GET", "/v1/me", key=up.reread()["keys"]["gold"])[0] == 200

    def figures():
        status, headers, text = up.call("GET", "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
        running = {sample.labels["process"] for sample in samples if (sample.name, sample.value) == UP}
        return running, sum(sample.value for sample in samples if sample.name == "apimgmt_calls_total")

    others = ("admin", "beat", "connectors", "delivery", "mqtt", "projector", "worker")
    everything = {"web-1", "web-2", *(f"{kind}-1" for kind in others)}
    eventually(lambda: figures()[0] == everything and figures()[1] >= 1)
    counted = figures()[1]
    rebuilt = [sys.executable, "manage.py", "rebuild", "analytics", "--data-dir", str(up.data_dir)]
    subprocess.run(rebuilt, cwd=ROOT, env=strangers_environment(), check=True, capture_output=True)
    assert figures()[1] >= counted


@pytest.mark.parametrize("engine", ["redis", "nats"])
def test_readiness_names_the_engine_that_hangs(up, engine):
    (pid,) = up.reread()["processes"][engine]
    freeze(pid)
    try:
        status, headers, body = up.call("GET", "/readyz")
        assert (status, headers["retry-after"]) == (503, "1")
        assert [name for name, state in body["engines"].items() if state != "ok"] == [engine]
        assert up.call("GET", "/healthz")[0] == 200
    finally:
        thaw(pid)
    eventually(lambda: up.call("GET", "/readyz")[0] == 200)


def test_a_command_beside_it_finds_its_engines(up):
    settings = up.environment | {"DATA_DIR": ""}
    for option in (["--data-dir", str(up.data_dir)], [f"--data-dir={up.data_dir}"]):
        command = [sys.executable, "manage.py", "issue_key", "gold", *option]
        issued = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=True)
        (key,) = [word for word in issued.stdout.split() if word.startswith("apim_")]
        eventually(lambda key=key: up.call("GET", "/v1/me", key=key)[0] == 200)


def test_a_second_up_on_the_same_data_directory_is_refused(up):
    refused = run_up("--data-dir", str(up.data_dir), "--port", "0", "--admin-port", "0", "--mqtt-port", "0")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Another `up`")
    assert "--data-dir" in refused.stderr
    assert (up.data_dir / "ready.json").exists()


@pytest.mark.parametrize("option", ["--port", "--admin-port", "--mqtt-port"])
def test_a_taken_port_is_a_clear_error_that_names_the_option(up, tmp_path, option):
    port = {"--port": up.port, "--admin-port": up.admin_port, "--mqtt-port": up.mqtt_port}[option]
    refused = run_up(
        "--data-dir", str(tmp_path), "--port", "0", "--admin-port", "0", "--mqtt-port", "0", option, str(port)
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"error: Port {port} on 127.0.0.1 is in use; choose another with {option}.\n"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"DEBUG": "1"}, "DEBUG is on"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS allows every host"),
        ({"SECRET_KEY": "change-me"}, "SECRET_KEY is shorter"),
        ({"PORT": "many"}, "PORT is 'many'"),
        ({"NATS_URL": "nats://127.0.0.1:9"}, "NATS_URL: nothing listens at 127.0.0.1:9"),
        ({"DATABASE_URL": "postgres://nobody@127.0.0.1:9/none"}, "The database does not answer"),
    ],
)
def test_what_it_cannot_or_must_not_run_with_is_said(tmp_path, settings, complaint):
    options = [] if "PORT" in settings else ["--port", "0"]
    refused = run_up("--data-dir", str(tmp_path), "--admin-port", "0", "--mqtt-port", "0", *options, **settings)
    assert refused.returncode == 1
    assert complaint in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.parametrize("kind", [*KINDS, "demo"])
def test_what_is_killed_is_started_again_and_told(up, kind):
    before = up.reread()["processes"][kind]
    others = {other: pids for other, pids in up.ready["processes"].items() if other != kind}
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(now(up, kind) - {before[0]}) == len(before), RESTART_WITHIN_S)
    assert {other: up.ready["processes"][other] for other in others} == others
    eventually(lambda: up.call("GET", "/v1/me", key=up.ready["keys"]["gold"])[0] == 200, RESTART_WITHIN_S)
    eventually(lambda: up.call("GET", "/readyz")[0] == 200, RESTART_WITHIN_S)


def now(up, kind):
    return set(up.reread()["processes"][kind])


def test_jobs_run_after_the_worker_and_its_broker_were_killed(up):
    for kind in ("worker", "redis"):
        os.kill(up.reread()["processes"][kind][0], signal.SIGKILL)
    gold = up.ready["keys"]["gold"]
    job = eventually(lambda: accepted(up, gold), 30)
    eventually(lambda: up.call("GET", job["statusUrl"], key=gold)[2].get("state") == "completed", 60)


def accepted(up, key):
    status, _, body = up.call("POST", "/reports", {"type": "daily"}, key=key)
    return body if status == 202 else None


def test_ctrl_c_reaches_the_whole_group_and_all_leave_in_order(tmp_path):
    """As in a terminal: every process of the group gets SIGINT at once."""
    data_dir = tmp_path / "var"
    command = [
        sys.executable,
        "manage.py",
        "up",
        "--port",
        "0",
        "--admin-port",
        "0",
        "--mqtt-port",
        "0",
        "--data-dir",
        str(data_dir),
    ]
    with (tmp_path / "output").open("wb") as output:
        launcher = subprocess.Popen(
            command, cwd=ROOT, env=strangers_environment(), stdout=output, stderr=output, start_new_session=True
        )
    try:
        ready = eventually(lambda: read(data_dir / "ready.json"), 60)
        mine = processes(ready)
        with socket.create_connection(("127.0.0.1", int(ready["base_url"].rpartition(":")[2]))) as idle:
            os.killpg(launcher.pid, signal.SIGINT)
            assert launcher.wait(60) == 0
            assert idle.recv(1) == b""  # closed, and not left open by somebody
    finally:
        launcher.kill()
        launcher.wait()
    assert [pid for pid in mine if lives(pid)] == []
    assert not (data_dir / "ready.json").exists()
    printed = (tmp_path / "output").read_text()
    assert printed.endswith("✓ stopped\n")
    assert "killed" not in printed  # all left by themselves
    assert "Traceback" not in "".join(path.read_text() for path in (data_dir / "logs").glob("*.log"))


def read(path):
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path.read_text())


def test_a_second_run_keeps_everything_also_after_the_supervisor_was_killed(tmp_path):
    first = Product(tmp_path / "var")
    before = first.ready
    made = first.admin("POST", "consumers", {"name": "acme", "tier": "gold"})
    status, _, body = first.call("POST", "/v1/channels/trades/events", {"price": 1}, key=before["keys"]["gold"])
    assert status == 201
    first.process.kill()
    first.process.wait()
    second = Product(tmp_path / "var")
    try:
        eventually(lambda: not [pid for pid in processes(before) if lives(pid)], 5)
        assert second.ready["keys"] == before["keys"]
        assert second.ready["admin"]["password"] == before["admin"]["password"]
        assert second.ready["admin"]["token"] == before["admin"]["token"]
        assert second.admin("GET", "consumers/acme") == made
        after = str(int(body["id"]) - 1)
        path = f"/v1/channels/trades/events?after={after}"
        (event,) = second.call("GET", path, key=before["keys"]["gold"])[2]["results"]
        assert (event["id"], event["data"]) == (body["id"], {"price": 1})
        assert set(second.manage("export").stdout.splitlines()) >= {"  - name: acme"}
    finally:
        assert second.stop() == 0
    assert [pid for pid in processes(second.ready) if lives(pid)] == []


def test_it_runs_without_a_demo(tmp_path):
    product = Product(tmp_path / "var", "--no-demo")
    assert product.ready["keys"] == {}
    assert product.ready["processes"]["demo"] == []
    assert product.admin("GET", "consumers")["results"] == []
    assert product.stop() == 0


def test_a_process_that_hangs_does_not_keep_it_from_stopping(tmp_path):
    product = Product(tmp_path / "var", "--no-demo", DRAIN_S="0.5")
    pids = processes(product.ready)
    freeze(product.ready["processes"]["beat"][0])
    product.process.send_signal(signal.SIGTERM)
    eventually(lambda: "draining" in product.printed(), 30)
    product.process.send_signal(signal.SIGTERM)  # the second one does not wait
    assert product.process.wait(30) == 0
    assert [pid for pid in pids if lives(pid)] == []
    assert "beat: did not end in time and is killed" in product.printed()


def test_help_needs_nothing(tmp_path):
    reported = run_up("--help", DATA_DIR=str(tmp_path / "var"))
    assert reported.returncode == 0
    for option in (
        "--host",
        "--port",
        "--admin-host",
        "--admin-port",
        "--mqtt-port",
        "--amqp-port",
        "--data-dir",
        "--workers",
        "--no-demo",
        "--public-demo",
    ):
        assert option in reported.stdout
