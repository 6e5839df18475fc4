"""The OpenAPI description of the management API: it states what the strict readers refuse."""

import re

import pytest

from operators.tests.api_cases import problem


@pytest.fixture
def description(client, db):
    return client.get("/api/v1/schema/").json()


def operations(description):
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def resolved(description, schema):
    return description["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def test_every_body_refuses_unknown_fields(description):
    bodies = 0
    for name, operation in operations(description):
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert resolved(description, schema)["additionalProperties"] is False, name
            bodies += 1
    assert bodies > 20


def test_every_limit_has_its_bounds_and_no_parameter_may_be_empty(description):
    limits = 0
    for name, operation in operations(description):
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            if parameter["name"] == "limit":
                assert (schema["minimum"], schema["maximum"]) == (1, 1000), name
                limits += 1
            elif parameter["in"] == "path":
                assert re.search(schema["pattern"], "a\x01") is None, name
            elif schema["type"] == "string" and "enum" not in schema and "format" not in schema:
                assert schema["minLength"] == 1, name
                assert re.search(schema["pattern"], " ") is None, name
    assert limits > 10


def test_names_have_the_characters_that_they_may_have(description):
    for kind in ("Tier", "Consumer", "Issuer", "Route", "Connector"):
        name = description["components"]["schemas"][f"{kind}FieldsRequest"]["properties"]["name"]
        assert name["minLength"] == 1
        assert re.search(name["pattern"], "a.b-c_1")
        for bad in ("", "-a", "a b", "a/b", "a" * 101):
            assert re.search(name["pattern"], bad) is None, (kind, bad)


FIELDS = {
    ("Route", "path"): (["/", "/a/{b}", "/{rest...}"], ["", "a", "x" * 10]),
    ("Channel", "content_type"): (["json", "image/jpeg", "text/csv; header=present"], ["", "jso", "image", "a/b;"]),
    ("Issuer", "jwks_url"): (["https://a.test/keys", "http://[::1]/"], ["", "a", "ftp://a.test/", "https://"]),
}


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_texts_have_the_form_that_they_may_have(description, kind, field):
    pattern = description["components"]["schemas"][f"{kind}FieldsRequest"]["properties"][field]["pattern"]
    good, bad = FIELDS[kind, field]
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in bad)


@pytest.mark.parametrize("kind", ["Tier", "Key"])
def test_scopes_have_the_form_that_they_may_have(description, kind):
    scopes = description["components"]["schemas"][f"{kind}FieldsRequest"]["properties"]["scopes"]
    pattern = scopes["items"]["pattern"]
    for good in ("*", "call:quotes", "publish:a b/{c}", "subscribe:trades?conflate=1s", "jobs:*"):
        assert re.search(pattern, good)
    for bad in ("", "quotes", "call:", "call:a b", "read:x"):
        assert re.search(pattern, bad) is None, bad


@pytest.mark.parametrize("query", ["?limit=0", "?limit=1001", "?limit=", "?limit=1.5", "?limit=x"])
def test_a_limit_outside_its_bounds_is_refused(api, query):
    problem(api.get(f"/api/v1/tiers/{query}"), 400, "invalid-request")


@pytest.mark.parametrize("method", ["TRACE", "QUERY", "PUT"])
@pytest.mark.parametrize("query", ["", "?actor="])
def test_a_method_that_is_not_served_is_refused_as_such_with_those_that_are(api, method, query):
    answer = api.generic(method, f"/api/v1/audit/{query}")
    problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["Allow"]


def test_pages_refuse_trace_with_what_they_allow(client, db):
    answer = client.generic("TRACE", "/dashboards/login")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.json()["reason"] == "method-not-allowed"


def test_a_secret_is_promised_to_nobody_whose_subscription_has_none(description):
    shown = description["components"]["schemas"]["ShownSubscriptionFields"]
    assert "secret" in shown["properties"]
    assert "secret" not in shown["required"]


def test_a_rollback_is_answered_as_described(description):
    assert "200" in description["paths"]["/api/v1/audit/rollback/"]["post"]["responses"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("consumers", {"name": "a", "tier": "gold", "is_active": 0}, "is_active"),
        ("consumers", {"name": "a", "tier": "gold", "is_active": "true"}, "is_active"),
        ("consumers", {"name": 1, "tier": "gold"}, "name"),
        ("consumers", {"name": "a", "tier": 0}, "tier"),
        ("subscriptions", {"consumer": "a", "type": "pull", "channel": "c", "max_in_flight": "5"}, "max_in_flight"),
        ("subscriptions", {"consumer": "a", "type": "pull", "channel": "c", "max_in_flight": True}, "max_in_flight"),
        ("subscriptions", {"consumer": "a", "type": "pull", "channel": "c", "ack_wait_s": "30"}, "ack_wait_s"),
        ("audit/rollback", {"to": 1796057634}, "to"),
        ("audit/rollback", {"to": "2026-01-31T12:00:00Z", "dry_run": 1}, "dry_run"),
    ],
)
def test_a_value_of_another_type_is_refused(api, tier, path, body, field):
    answer = problem(api.post(f"/api/v1/{path}/", body), 400, "invalid-request")
    assert field in answer["errors"]
