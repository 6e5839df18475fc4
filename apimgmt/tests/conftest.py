import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from apimgmt import engines

START_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def postgres_url():
    """Return the URL of an empty database on the tests' own PostgreSQL."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    assert programs, "PostgreSQL is not installed: run script/test --services"
    folder = Path(tempfile.mkdtemp(prefix="apimgmt-postgres-"))
    owner = {}
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        owner = {"user": user.pw_uid, "group": user.pw_gid, "cwd": folder}
    try:
        (folder / "password").write_text("pass word")
        os.chmod(folder / "password", 0o644)
        making = [
            programs / "initdb",
            "-D",
            folder / "data",
            "-U",
            "tests",
            "-A",
            "md5",
            "--pwfile",
            folder / "password",
        ]
        subprocess.run([*making, "-E", "UTF8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, **owner)
        port = engines.free_port()
        options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-k", folder, *options], stderr=subprocess.DEVNULL, **owner
        )
        try:
            _wait_for(server, port)
            yield f"postgres://tests:pass%20word@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def own_redis_url(tmp_path):
    """Return the URL of a Redis server, as opposed to the embedded Valkey."""
    program = shutil.which("redis-server")
    assert program, "Redis is not installed: run script/test --services"
    port = engines.free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        _wait_for(server, port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(server, port):
    """Wait until a server listens; PostgreSQL does so a little before it is ready, so ask twice."""
    ends_at = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert server.poll() is None, f"it ended with {server.returncode}"
        assert time.monotonic() < ends_at, "it does not listen"
        time.sleep(0.05)
