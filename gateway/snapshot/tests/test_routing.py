"""Which template a path means."""

import pytest

from gateway.snapshot.routing import PathTable

TABLE = PathTable(
    [
        ("/quotes", "all"),
        ("/quotes/{symbol}", "one"),
        ("/quotes/latest", "latest"),
        ("/api/{version}/{rest...}", "rest"),
        ("/api/{version}/health", "health"),
        ("sensors/{device}/temperature", "temperature"),
    ]
)


@pytest.mark.parametrize(
    ("path", "value", "parameters"),
    [
        ("/quotes", "all", {}),
        ("/quotes/ACME", "one", {"symbol": "ACME"}),
        ("/quotes/latest", "latest", {}),
        ("/api/v1/a/b/c", "rest", {"version": "v1", "rest": "a/b/c"}),
        ("/api/v1/", "rest", {"version": "v1", "rest": ""}),
        ("/api/v1/health", "health", {"version": "v1"}),
        ("/api/v1/healthy", "rest", {"version": "v1", "rest": "healthy"}),
        ("sensors/d1/temperature", "temperature", {"device": "d1"}),
    ],
)
def test_the_most_special_template_wins(path, value, parameters):
    assert TABLE.find(path) == [(value, parameters)]


@pytest.mark.parametrize("path", ["/", "", "/quote", "/quotes/", "/quotes/a/b", "/api", "sensors//temperature"])
def test_what_no_template_means_is_not_found(path):
    assert TABLE.find(path) == []


def test_templates_that_share_a_path_are_all_given():
    table = PathTable([("/x/{a}", 1), ("/x/{b}", 2)])
    assert table.find("/x/y") == [(1, {"a": "y"}), (2, {"b": "y"})]
