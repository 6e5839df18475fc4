"""`script/bench` runs a work: the product and those peers that are installed, each measured and verified."""

import subprocess
import sys

import pytest

from tests.product import ROOT, strangers_environment

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


def test_one_work_prints_a_row_for_the_product_and_for_each_installed_peer():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "get", "--rounds", "1", "--seconds", "1"],
        cwd=ROOT, env=strangers_environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if "µs cpu" in line]
    who = [line.removeprefix("GET 101 B").split()[0] for line in rows]
    assert who[0] == "apimgmt"
    absent = {
        line.split(": ")[1].split(";")[0] for line in done.stdout.splitlines() if line.startswith("not installed")
    }
    assert set(who[1:]) | absent >= {"Envoy", "nginx", "HAProxy", "Caddy"}
