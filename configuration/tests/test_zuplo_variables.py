"""Variables of a Zuplo project are replaced wherever they stand, or reported: they are never written as they are."""

import json

import pytest

from configuration.importers.options import Options, Secret
from configuration.importers.report import Report
from configuration.importing import described_objects
from configuration.tests.imports import document, handler, zuplo_of

VARIABLES = {"HOST": "up.example", "ORIGIN": "https://a.example", "KEY": Secret("sk-1234567890"), "NAME": "X-A"}


def described(route, *policies, path="/x", cors=()):
    """Return what a document with one route describes, as text, with the lines of the report."""
    data = {"openapi": "3.1.0", "paths": zuplo_of(route, path), "policies": policies, "corsPolicies": cors}
    report = Report()
    wanted = described_objects(document(data), None, Options(variables=VARIABLES), report)
    return json.dumps([imported.values for imported in wanted]), report


def policy(type_, **options):
    return {"name": "p", "policyType": type_, "handler": {"options": options}}


@pytest.mark.parametrize("host", ["$env(HOST)", "${env.HOST}"])
@pytest.mark.parametrize("of", ["https://{}/a/x", "https://b.example/{}/x"])
def test_both_spellings_are_replaced_in_urls(host, of):
    for one in (handler(rewritePattern=of.format(host)), handler("urlForwardHandler", baseUrl=of.format(host)[:-2])):
        shown, report = described({"handler": one})
        assert of.format("up.example") in shown
        assert not report.placeholders


@pytest.mark.parametrize("host", ["$env(HOST)", "${env.HOST}"])
def test_both_spellings_are_replaced_in_policies(host):
    given = policy("set-headers-inbound", headers=[{"name": "X-A", "value": f"at {host}"}])
    shown, _ = described({"handler": handler(), "policies": {"inbound": ["p"]}}, given)
    assert "at up.example" in shown


def test_an_origin_is_replaced_or_reported():
    route = {"handler": handler(), "corsPolicy": "ours"}
    shown, report = described(route, cors=[{"name": "ours", "allowedOrigins": ["$env(ORIGIN)"]}])
    assert (VARIABLES["ORIGIN"] in shown, report.skipped) == (True, [])
    for name, fault in (("NONE", "$env(NONE) has no value"), ("KEY", "an origin of the CORS policy ours is a secret")):
        shown, report = described(route, cors=[{"name": "ours", "allowedOrigins": f"$env({name})"}])
        assert '"cors"' not in shown
        assert fault in report.skipped[0]


@pytest.mark.parametrize("value", ["$env(NONE)", "${env.NONE}", "https://up.example/$env(NONE)/x"])
def test_a_url_whose_variable_has_no_value_becomes_a_placeholder(value):
    shown, report = described({"handler": handler(rewritePattern=value)})
    assert "$" not in shown
    assert "has no value; give it with --env FILE" in report.placeholders[0]


@pytest.mark.parametrize("path", ["/x/$env(HOST)", "/x/${env.HOST}"])
def test_a_variable_in_a_path_is_reported(path):
    data = {"openapi": "3.1.0", "paths": zuplo_of({"handler": handler()}, path) | zuplo_of({"handler": handler()})}
    report = Report()
    wanted = described_objects(document(data), None, Options(variables=VARIABLES), report)
    assert [imported.values["path"] for imported in wanted] == ["/x"]
    assert "a path has no variables" in report.skipped[0]


@pytest.mark.parametrize(
    "given",
    [
        policy("open-id-jwt-auth-inbound", issuer="https://i", audience="a", jwkUrl="https://i.example/?k=$env(KEY)"),
        policy("auth0-jwt-auth-inbound", auth0Domain="$env(KEY)", audience="a"),
        policy("set-headers-inbound", headers=[{"name": "$env(KEY)", "value": "1"}]),
        policy("set-headers-inbound", headers=[{"name": "X-A", "value": ["$env(KEY)"]}]),
        policy("set-headers-inbound", headers=[{"name": "$env(NAME)", "value": {"of": "$env(KEY)"}}]),
    ],
)
def test_a_secret_where_it_would_be_shown_becomes_a_placeholder(given):
    shown, report = described({"handler": handler(), "policies": {"inbound": ["p"]}}, given)
    assert VARIABLES["KEY"] not in shown
    assert '"placeholder"' in shown
    assert report.placeholders


def test_a_websocket_whose_messages_pass_through_code_becomes_a_placeholder():
    filters = {"inbound": [{"export": "firewall", "module": "$import(./modules/f)"}], "outbound": ["quiet"]}
    options = {"rewritePattern": "https://up.example/ws", "policies": filters}
    shown, report = described({"handler": handler("webSocketPipelineHandler", **options)})
    assert '"placeholder"' in shown
    assert "firewall of ./modules/f, quiet, which are not the gateway's" in report.placeholders[0]
