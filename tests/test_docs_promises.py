"""Every test that the page of promises names is there."""

import pytest

from tests.named import ROOT, is_there, named_in

NAMED = named_in((ROOT / "docs" / "promises.md").read_text())


def test_tests_are_named_at_all():
    assert len([name for name in NAMED if "::" in name]) > 20


@pytest.mark.parametrize("named", NAMED)
def test_what_is_named_is_there(named):
    assert is_there(named)
