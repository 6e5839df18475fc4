"""Swagger 2.0, as Kubernetes and Slack publish their APIs, becomes routes as OpenAPI 3 does."""

import pytest

from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.importing import described_objects, import_file
from configuration.tests.imports import document, refusal_of
from routes.models import Route

PET = {"get": {"operationId": "getPet", "parameters": [{"$ref": "#/parameters/id"}], "responses": {}}}


def urls(paths, server="", **more):
    imported = described_objects(document({"swagger": "2.0", "paths": paths, **more}), None, Options(server=server))
    return [(one.values["path"], one.values["protocol"], one.values["handler"]["url"]) for one in imported]


@pytest.mark.parametrize(
    ("more", "server", "url"),
    [
        ({"host": "a.example", "basePath": "/v2", "schemes": ["http", "https"]}, "", "https://a.example/v2"),
        ({"host": "a.example:81", "schemes": ["http"]}, "", "http://a.example:81"),
        ({"host": "a.example", "basePath": "/"}, "", "https://a.example"),
        ({"basePath": "/api"}, "https://up.example", "https://up.example/api"),
        ({}, "https://up.example", "https://up.example"),
        ({"host": "a.example"}, "https://up.example", "https://up.example"),
    ],
)
def test_the_upstream_is_the_host_with_the_base_path(more, server, url):
    assert urls({"/pets/{id}": PET}, server, **more) == [("/pets/{id}", "http", f"{url}/pets/{{id}}")]


def test_an_operation_has_its_own_schemes_and_streams():
    paths = {
        "/events": {"get": {"produces": ["text/event-stream"], "responses": {}}},
        "/socket": {"get": {"schemes": ["wss"], "responses": {}}},
    }
    assert urls(paths, host="a.example") == [
        ("/events", "sse", "https://a.example/events"),
        ("/socket", "websocket", "wss://a.example/socket"),
    ]


def test_a_document_without_a_host_needs_a_server():
    assert "name it with --server URL" in refusal_of({"swagger": "2.0", "paths": {"/a": PET}})


@pytest.mark.django_db
def test_importing_it_again_changes_nothing_and_places_are_its_own(tmp_path):
    file = tmp_path / "swagger.yaml"
    file.write_text("swagger: '2.0'\ninfo: {title: T}\nhost: a.example\npaths:\n  /a: {get: {}}\n  /b#c: {get: {}}\n")
    report = Report()
    import_file(file, report=report, by="ann")
    assert Route.objects.get().handler["url"] == "https://a.example/a"
    assert "swagger.yaml:6:3" in report.skipped[0]
    assert not import_file(file, by="ann")
