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


MIXED = PathTable(
    [
        ("/Accounts/{Sid}.json", "account"),
        ("/Accounts/{Sid}/Calls.{format}", "calls"),
        ("/Accounts/{Sid}", "any"),
        ("/operations/{name}:cancel", "cancel"),
        ("/operations/{name}:{verb}", "verb"),
        ("/Products({id})", "product"),
        ("/Products(Id={id},Code={code})", "by code"),
        ("/compare/{base}...{head}", "compare"),
        ("/compare/{rest...}", "rest"),
    ]
)


@pytest.mark.parametrize(
    ("path", "value", "parameters"),
    [
        ("/Accounts/AC1.json", "account", {"Sid": "AC1"}),
        ("/Accounts/AC1.json.json", "account", {"Sid": "AC1.json"}),
        ("/Accounts/.json", "any", {"Sid": ".json"}),
        ("/Accounts/AC1", "any", {"Sid": "AC1"}),
        ("/Accounts/AC1/Calls.csv", "calls", {"Sid": "AC1", "format": "csv"}),
        ("/operations/op-1:cancel", "cancel", {"name": "op-1"}),
        ("/operations/a:b:c", "verb", {"name": "a", "verb": "b:c"}),
        ("/Products(7)", "product", {"id": "7"}),
        ("/Products(Id=7,Code=x)", "by code", {"id": "7", "code": "x"}),
        ("/compare/main...topic", "compare", {"base": "main", "head": "topic"}),
        ("/compare/main..topic", "rest", {"rest": "main..topic"}),
        ("/compare/...", "rest", {"rest": "..."}),
    ],
)
def test_a_segment_may_have_text_beside_its_parameters(path, value, parameters):
    """As in twilio/twilio-oai, googleapis' custom methods (AIP-136) and OData."""
    assert MIXED.find(path) == [(value, parameters)]


@pytest.mark.parametrize("path", ["/Products()", "/Products(7", "/operations/:x", "/operations/x:"])
def test_a_parameter_of_a_mixed_segment_is_not_empty(path):
    assert MIXED.find(path) == []
