"""The product as a stranger runs it: `manage.py up` on free ports in a folder of its own."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from apimgmt.engines import free_port

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 90
OF_THE_TESTS = {
    "REDIS_URL", "NATS_URL", "DATABASE_URL", "DATA_DIR", "DJANGO_SETTINGS_MODULE", "SECRET_KEY", "KEY_PEPPER",
    "TESTS_DATA_DIR",
}  # fmt: skip
"""What the tests' own settings put into the environment, and a stranger's shell does not have."""
STOP_TIMEOUT_S = 40


def strangers_environment() -> dict[str, str]:
    """Return the environment without the variables that the tests set."""
    return {name: value for name, value in os.environ.items() if name not in OF_THE_TESTS}


class Product:
    """One running product, and the few things that tests ask of it."""

    def __init__(self, data_dir: Path, *options: str, **settings: str) -> None:
        self.data_dir = data_dir
        (data_dir / "ready.json").unlink(missing_ok=True)  # of a run that was killed
        self.environment = strangers_environment() | settings
        self.port, self.admin_port, self.mqtt_port = free_port(), free_port(), free_port()
        self.output = data_dir.with_name(data_dir.name + ".output")
        command = [
            sys.executable, "manage.py", "up", "--port", str(self.port), "--admin-port", str(self.admin_port),
            "--mqtt-port", str(self.mqtt_port), "--data-dir", str(data_dir), *options,
        ]  # fmt: skip
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.ready = self._wait_until_ready()

    @property
    def base_url(self) -> str:
        return self.ready["base_url"]

    @property
    def admin_url(self) -> str:
        """The origin of the operators' pages, the management API and the metrics."""
        return self.ready["admin"]["url"].removesuffix("/admin/")

    @property
    def ws_url(self) -> str:
        return self.ready["ws_url"]

    def reread(self) -> dict:
        """Read ready.json anew: processes may have been started again."""
        self.ready = json.loads((self.data_dir / "ready.json").read_text())
        return self.ready

    def origin_of(self, path: str) -> str:
        """Return the origin that serves a path: the operators' pages are not on the data plane's."""
        is_operators = re.match("/(admin|api|dashboards|metrics)(/|$|[?])", path) is not None
        return self.admin_url if is_operators else self.base_url

    def call(self, method: str, path: str, body=None, key: str | None = None, headers=None):
        """Make one request. Gives (status, headers in lower case, decoded JSON or bytes)."""
        url = path if path.startswith("http") else self.origin_of(path) + path
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        if data is not None and not request.has_header("Content-type"):
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, _lower(answer.headers), _decoded(answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _lower(error.headers), _decoded(error.headers, error.read())

    def admin(self, method: str, path: str, body=None):
        """Make one request to the management API. Gives the decoded answer; a refusal fails the test."""
        token = self.ready["admin"]["token"]
        status, _, reply = self.call(
            method, f"{self.ready['admin']['api_url']}{path}", body, headers={"Authorization": f"Token {token}"}
        )
        assert status < 300, (status, reply)
        return reply

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run a `manage.py` command beside the product."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment | {"DATA_DIR": str(self.data_dir)},
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    def stop(self) -> int:
        """Ask it to leave with SIGTERM and wait until it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not stop:\n{self.printed()}") from None

    def printed(self) -> str:
        return self.output.read_text(errors="replace")[-8000:]

    def _wait_until_ready(self) -> dict:
        ends_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < ends_at:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                return json.loads((self.data_dir / "ready.json").read_text())
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.printed()}")
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(f"not ready in {START_TIMEOUT_S} s:\n{self.printed()}")


def eventually(look, within_s: float = 15.0):
    """Look until what is seen is true; gives it. Fails when the time is over."""
    ends_at = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < ends_at, f"not seen within {within_s} s; last: {seen!r}"
        time.sleep(0.05)


def tool(name: str) -> str:
    """Return the path of a program that ``script/services`` installs."""
    path = shutil.which(name)
    assert path, f"{name} is not installed: run script/test --services"
    return path


def _lower(headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _decoded(headers, body: bytes):
    return json.loads(body) if "json" in (headers.get("content-type") or "") and body else body
