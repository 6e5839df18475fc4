import pytest

from configuration.importers import openapi
from configuration.importers.options import Options
from configuration.importers.report import Report
from configuration.tests.imports import document, openapi_routes, refusal_of
from configuration.yaml_documents import DocumentError


def test_openapi_gives_one_route_for_every_path():
    data = {
        "openapi": "3.1.0",
        "servers": [{"url": "https://{host}/v2/", "variables": {"host": {"default": "up.example"}}}],
        "paths": {
            "/pets/{pet-id}": {"get": {"operationId": "getPet"}, "delete": {}, "parameters": []},
            "/feed": {"get": {"operationId": "feed", "responses": {"200": {"content": {"text/event-stream": {}}}}}},
            "/own": {"servers": [{"url": "http://other.example"}], "post": {"operationId": "make own"}},
            "/head-only": {"head": {}},
            "x-note": "ignored",
        },
    }
    pets, feed, own, head = (wanted.values for wanted in openapi_routes(document(data)))
    assert (pets["name"], pets["path"], pets["methods"]) == ("pets-pet-id", "/pets/{pet_id}", ["GET", "DELETE"])
    assert pets["handler"]["url"] == "https://up.example/v2/pets/{pet_id}"
    assert (feed["name"], feed["protocol"]) == ("feed", "sse")
    assert head["methods"] == ["HEAD"]
    assert (own["name"], own["handler"]["url"]) == ("make-own", "http://other.example/own")
    assert all(route["policies"] == [{"type": "api-key"}, {"type": "rate-limit"}] for route in (pets, feed, own))


@pytest.mark.parametrize(
    ("servers", "fault"),
    [
        (None, "has no servers"),
        ([], "has no servers"),
        ([{"url": "/v1"}], "is relative"),
        ([{"url": "https://{host}/"}], "the variable host of the server has no default"),
    ],
)
def test_openapi_without_a_server_that_can_be_called_is_refused(servers, fault):
    data = {"openapi": "3.0.3", "paths": {"/a": {"get": {}}}} | ({"servers": servers} if servers is not None else {})
    assert fault in refusal_of(data)


def test_an_upstream_that_is_no_url_is_refused():
    with pytest.raises(DocumentError, match="--server must be an absolute URL"):
        Options(server="http://[")
    data = {"openapi": "3.1.0", "servers": [{"url": "//["}], "paths": {"/a": {"get": {}}}}
    with pytest.raises(DocumentError, match=r"the server https://\[ is not a URL"):
        openapi.routes(document(data), Options(server="https://api.example"), Report())
