"""Secrets of a Zuplo project become the credential of a route's upstream, and are shown nowhere."""

import json

import pytest
from django.conf import settings

from audit.models import Change
from configuration.export import export_text
from configuration.importers.options import Options, read_variables
from configuration.importers.report import Report
from configuration.importing import import_document
from configuration.tests.imports import document, handler, zuplo_of
from gateway.credentials.sealed import unseal
from gateway.snapshot.documents import credential_purpose
from routes.models import Route

pytestmark = pytest.mark.django_db
SECRET = "sk-live-1234567890"


@pytest.fixture
def variables(tmp_path):
    file = tmp_path / ".env"
    file.write_text(f"BACKEND_API_KEY={SECRET}\nPARTNER='{SECRET}' # secret\nREGION=eu\n")
    return read_variables(file)


def set_headers(name, side="inbound", **headers):
    listed = [{"name": header.replace("_", "-"), "value": value} for header, value in headers.items()]
    return {"name": name, "policyType": f"set-headers-{side}", "handler": {"options": {"headers": listed}}}


def imported(variables, *policies, url="https://up.example/x", **sides):
    """Import one route with these policies, and return it with the report and the change."""
    route = {
        "handler": handler(rewritePattern=url),
        "policies": sides or {"inbound": [policy["name"] for policy in policies]},
    }
    paths = zuplo_of(route)
    data = {"openapi": "3.1.0", "info": {"title": "Z", "version": "1"}, "paths": paths, "policies": list(policies)}
    report = Report()
    diff = import_document(document(data), options=Options(variables=variables), report=report, by="ann")
    return Route.objects.get(), report, diff


def shown():
    """Return everything that shows the configuration: the export, the records, and the rows."""
    records = list(Change.objects.values("before", "after"))
    rows = list(Route.objects.values("handler", "policies"))
    return export_text() + json.dumps([records, rows])


@pytest.mark.parametrize("value", ["Bearer $env(BACKEND_API_KEY)", "$env(PARTNER)"])
def test_a_header_with_a_secret_becomes_the_credential_of_the_upstream(variables, value):
    policies = [set_headers("both", Authorization=value, X_Region="$env(REGION)")]
    route, report, diff = imported(variables, *policies)
    assert [policy["options"] for policy in route.policies] == [{"headers": {"X-Region": "eu"}, "on": "request"}]
    opened = unseal(settings.SECRET_KEY.encode(), credential_purpose(route.name), route.sealed_credential)
    assert json.loads(opened)["value"].endswith(SECRET)
    assert SECRET not in shown() + str(diff.text()) + str(diff.entries)
    assert not report.placeholders
    assert not imported(variables, *policies)[2]


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Ocp-Apim-Subscription-Key", "x-auth-token"])
def test_a_header_for_credentials_becomes_one_wherever_its_value_is_from(variables, name):
    route, _, _ = imported(variables, set_headers("p", **{name: SECRET}))
    assert (route.policies, bool(route.sealed_credential)) == ([], True)
    assert SECRET not in shown()


def test_a_second_credential_becomes_a_placeholder(variables):
    policies = set_headers("one", Authorization=SECRET), set_headers("two", X_Api_Key="$env(PARTNER)")
    route, report, _ = imported(variables, *policies)
    assert [policy["type"] for policy in route.policies] == ["placeholder"]
    assert "the policy two: a route has one credential of its upstream, and this is another" in report.placeholders[0]
    assert SECRET not in shown()


def test_a_secret_anywhere_else_becomes_a_placeholder(variables):
    answer = set_headers("answer", "outbound", X_Partner="$env(PARTNER)")
    code = {"function": "demo.hooks:f", "key": "$env(BACKEND_API_KEY)"}
    custom = {"name": "code", "policyType": "custom-code-inbound", "handler": {"options": code}}
    url = "https://up.example/?key=${env.BACKEND_API_KEY}"
    route, report, _ = imported(variables, answer, custom, url=url, inbound=["code"], outbound=["answer"])
    assert route.handler["type"] == "placeholder"
    assert [policy["type"] for policy in route.policies] == ["placeholder", "placeholder"]
    assert len(report.placeholders) == 3
    assert SECRET not in shown()


def test_a_credential_for_a_placeholder_is_reported(variables):
    route, report, _ = imported(variables, set_headers("p", Authorization=SECRET), url="https://${env.NONE}/")
    assert not route.sealed_credential
    assert "the header Authorization of the route x is a credential" in report.skipped[0]
    assert SECRET not in shown()
