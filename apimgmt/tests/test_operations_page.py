import argparse
import re
from dataclasses import fields
from pathlib import Path

import pytest

from apimgmt.launcher.plan import add_options
from gateway.config import Config

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text()
BOUNDS = [field for field in fields(Config) if field.type in ("int", "float") and field.name != "port"]
OF_OURS = {"WEB_NUMBER"}
"""What a process is told by its supervisor alone."""


def read_in_the_code():
    """Find every variable that settings, environment and launcher read."""
    sources = [*(ROOT / "apimgmt").glob("*.py"), *(ROOT / "apimgmt" / "launcher").glob("*.py")]
    reader = re.compile(
        r"env\.(?:text|number|flag|names|networks|secret|engine_url)\(\s*\"([A-Z_]+)\"|[^.](?:text|number)\(\"([A-Z_]+)\""
    )
    return {one or other for path in sources for one, other in reader.findall(path.read_text())}


def test_every_variable_that_is_read_is_on_the_page():
    read = read_in_the_code()
    assert {"DATABASE_URL", "PORT", "LOG_LEVEL", "PUBLIC_URL", "EVENTS_SYNC"} <= read  # they are found at all
    assert [name for name in sorted(read - OF_OURS) if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda field: field.name)
def test_every_bound_is_on_the_page_with_its_default(bound):
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{bound.name.upper()}`" in line]
    names, defaults = (re.findall(r"[A-Z_]{2,}|[\d.]+", cell) for cell in row.split("|")[1:3])
    assert float(dict(zip(names, defaults, strict=True))[bound.name.upper()]) == bound.default


def test_every_option_is_on_the_page_with_its_default(monkeypatch):
    for name in (
        "HOST",
        "PORT",
        "ADMIN_HOST",
        "ADMIN_PORT",
        "MQTT_PORT",
        "AMQP_PORT",
        "DATA_DIR",
        "WORKERS",
        "NO_DEMO",
    ):
        monkeypatch.delenv(name, raising=False)
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    for action in parser._actions:
        (option,) = action.option_strings
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{option}` |")]
        _, _, variable, default, _ = (cell.strip() for cell in row.split("|")[:5])
        assert variable == f"`{action.dest.upper()}`"
        assert default == ("no" if action.default is False else f"`{action.default}`")
