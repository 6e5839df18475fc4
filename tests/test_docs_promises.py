"""Every test that the page of promises names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:\w+/)+(?:\w+\.py)?(?:::\w+)?)`", PAGE)))


def test_tests_are_named_at_all():
    assert len([name for name in NAMED if "::" in name]) > 20


@pytest.mark.parametrize("named", NAMED)
def test_what_is_named_is_there(named):
    path, _, test = named.partition("::")
    assert (ROOT / path).exists()
    if test:
        assert re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE)
