"""static/apimgmt.js under Node: its own tests, its size, and that it needs nothing else."""

import re
import subprocess

import pytest

from tests.conformance.clients import HERE
from tests.product import ROOT, tool

LIBRARY = ROOT / "static/apimgmt.js"
MAX_BYTES = 10_000


def test_the_library_is_small_and_depends_on_nothing():
    text = LIBRARY.read_text()
    assert len(text.encode()) <= MAX_BYTES
    assert re.search(r"\bimport\b", text) is None
    assert re.search(r"innerHTML|eval\(|new Function", text) is None


@pytest.mark.services
def test_its_own_tests_pass():
    command = [tool("node"), "--test", "browser/apimgmt.test.mjs"]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
