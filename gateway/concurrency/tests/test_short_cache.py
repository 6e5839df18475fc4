"""Caches of texts that callers choose."""

import pytest

from gateway.concurrency.short_cache import ARGUMENT_MAX, short_cache


@pytest.fixture
def doubled():
    computed = []

    @short_cache(4)
    def function(text):
        computed.append(text)
        if not text:
            raise ValueError("empty")
        return text * 2

    function.computed = computed
    return function


def test_short_arguments_are_computed_once(doubled):
    assert [doubled("a"), doubled("a")] == ["aa", "aa"]
    assert doubled.computed == ["a"]


def test_long_arguments_are_computed_each_time_and_not_kept(doubled):
    long = "x" * (ARGUMENT_MAX + 1)
    assert doubled(long) == doubled(long) == long * 2
    assert doubled.computed == [long, long]
    assert doubled.cached_entries() == 0


def test_at_most_its_entries_are_kept(doubled):
    for number in range(50):
        doubled(str(number))
    assert doubled.cached_entries() == 4


def test_what_raises_is_not_kept(doubled):
    for _ in range(2):
        with pytest.raises(ValueError, match="empty"):
            doubled("")
    assert doubled.computed == ["", ""]
