"""The page on configuration agrees with the code."""

import re
from pathlib import Path

import pytest

from configuration.apply import apply_text
from configuration.importers.zuplo_policies import CONVERTERS
from configuration.kinds import KINDS
from gateway.policies import KNOWN
from routes.validation import HANDLER_FIELDS

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


@pytest.mark.django_db
def test_the_example_applies():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert {entry.kind for entry in apply_text(example, "example", by="ann").entries} == {kind.kind for kind in KINDS}


def test_every_field_handler_and_policy_has_its_place_on_the_page():
    names = {name for kind in KINDS for name in (kind.section, *kind.fields)} - {kind.section for kind in KINDS}
    for name in [*names, *KNOWN, *HANDLER_FIELDS, *CONVERTERS]:
        assert f"`{name}`" in PAGE, name
