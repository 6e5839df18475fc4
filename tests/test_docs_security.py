"""The pages on security name only what exists, and leave out no requirement of ASVS 5.0.0 and no risk of APIs."""

import re
from collections import Counter

import pytest

from tests.named import ROOT, is_there, named_in

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("security", "asvs")}
LEVEL_1 = """
1.2.1-5 1.3.1-2 1.5.1 2.1.1 2.2.1-2 2.3.1 3.2.1-2 3.3.1 3.4.1-2 3.5.1-3 4.1.1 4.4.1 5.2.1-2 5.3.1-2 6.1.1
6.2.1-8 6.3.1-2 6.4.1-2 7.2.1-4 7.4.1-2 8.1.1 8.2.1-2 8.3.1 9.1.1-3 9.2.1 10.4.1-5 11.3.1-2 11.4.1 12.1.1
12.2.1-2 13.4.1 14.2.1 14.3.1 15.1.1 15.2.1 15.3.1
"""
LEVEL_2 = """
1.1.1-2 1.2.6-9 1.3.3-11 1.4.1-3 1.5.2 2.1.2-3 2.2.3 2.3.2-4 2.4.1 3.3.2-4 3.4.3-6 3.5.4-5 3.7.1-2 4.1.2-3 4.2.1
4.3.1-2 4.4.2-4 5.1.1 5.2.3 5.4.1-3 6.1.2-3 6.2.9-12 6.3.3-4 6.4.3-4 6.5.1-5 6.6.1-3 6.8.1-4 7.1.1-3 7.3.1-2
7.4.3-5 7.5.1-2 7.6.1-2 8.1.2 8.2.3 8.4.1 9.2.2-4 10.1.1-2 10.2.1-2 10.3.1-4 10.4.6-11 10.5.1-5 10.6.1-2
10.7.1-3 11.1.1-2 11.2.1-3 11.3.3 11.4.2-4 11.5.1 11.6.1 12.1.2-3 12.3.1-4 13.1.1 13.2.1-5 13.3.1-2 13.4.2-5
14.1.1-2 14.2.2-4 14.3.2-3 15.1.2-3 15.2.2-3 15.3.2-7 16.1.1 16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3 17.1.1 17.2.1-4
17.3.1-2
"""
RISKS = [f"API{number}" for number in range(1, 11)]
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (\d) \| ([a-z/ ]+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGES["asvs"])


def requirements(text):
    """Return the numbers of a list such as ``1.2.1-3 1.3.1``."""
    for word in text.split():
        section, _, span = word.rpartition(".")
        first, _, last = span.partition("-")
        yield from (f"{section}.{number}" for number in range(int(first), int(last or first) + 1))


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_is_there(page):
    named = named_in(PAGES[page])
    assert len(named) > 100
    assert [name for name in named if not is_there(name)] == []


def test_every_requirement_has_one_row_with_its_level():
    expected = [(number, "1") for number in requirements(LEVEL_1)] + [(number, "2") for number in requirements(LEVEL_2)]
    assert len(expected) == 253
    assert sorted((number, level) for number, level, *_ in ROWS) == sorted(expected)


def test_the_summary_counts_the_rows():
    counted = {
        state: int(count) for state, count in re.findall(r"^\| ([a-z/ ]+) \| (\d+) \|", PAGES["asvs"], re.MULTILINE)
    }
    assert counted == Counter(state for _, _, state, *_ in ROWS)


def test_every_row_says_where_or_why():
    assert [number for number, *_, where, _ in ROWS if not where.strip()] == []


def test_every_risk_of_apis_has_one_row_with_its_tests():
    rows = re.findall(r"^\| \*\*(API\d+)\*\* [^|]+\|[^|]+\|[^|]+\|([^|]+)\|$", PAGES["security"], re.MULTILINE)
    assert [risk for risk, _ in rows] == RISKS
    assert all("::test_" in shown for _, shown in rows)


def test_every_threat_is_shown_by_a_test():
    threats = re.findall(r"^\| ([STRIDE]) \| ([^|]+)\|[^|]+\|[^|]+\|([^|]+)\|$", PAGES["security"], re.MULTILINE)
    assert len(threats) > 60
    assert [threat for _, threat, shown in threats if "::test_" not in shown] == []
