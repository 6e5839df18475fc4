"""Real embedded engines for the tests that need them."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("suite", deadline=None)  # timing decides no test
hypothesis.settings.load_profile("suite")

START_TIMEOUT_S = 10
FOLLOWING = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
"""Starts a program that is killed when the tests are (Linux: PR_SET_PDEATHSIG), so that none is left behind."""


@contextlib.contextmanager
def running(engine):
    """Run an engine until the block is left."""
    following = (sys.executable, "-I", "-S", "-c", FOLLOWING) if sys.platform == "linux" else ()
    process = subprocess.Popen((*following, *engine.command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends_at = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", engine.port), timeout=1):
                break
            assert process.poll() is None, f"{engine.name} ended with {process.returncode}"
            assert time.monotonic() < ends_at, f"{engine.name} does not listen"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """Start a real Valkey and return its URL."""
    from apimgmt import engines

    engine = engines.redis(tmp_path_factory.mktemp("valkey"), engines.free_port(), "test-password")
    with running(engine):
        yield engine.url


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory):
    """Start a real NATS with JetStream and return its URL."""
    from apimgmt import engines

    engine = engines.nats(Path(tmp_path_factory.mktemp("nats")), engines.free_port(), "user", "test-password", "1s")
    with running(engine):
        yield engine.url
