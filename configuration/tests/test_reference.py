import json
import re

import pytest
from django.contrib.auth.models import Permission, User

from events.services import create_channel
from routes.services import create_route

pytestmark = pytest.mark.django_db

PAGES = ("/docs/reference/openapi", "/docs/reference/asyncapi")


@pytest.fixture(autouse=True)
def _configuration(db):
    schema = {"type": "object", "description": "<script>alert(1)</script>"}
    create_channel(address="inner/{id}", title="Inner <b>things</b>", schema=schema, protocols=["mqtt"], by="ann")
    create_channel(address="a?b", schema={"$id": "https://x.example/a"}, retention={"max_events": 5}, by="ann")
    upstream = {"type": "upstream", "url": "http://hidden.example/"}
    policies = [{"type": "validate", "options": {"schema": schema}}]
    create_route(name="orders", path="/orders/{id}", handler=upstream, policies=policies, by="ann")


@pytest.fixture
def operator(client):
    client.force_login(User.objects.create_superuser("olga", password="a-long-enough-passphrase"))
    return client


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("ending", ["", ".json"])
def test_a_stranger_sees_no_route_and_no_channel(client, path, ending):
    answer = client.get(path + ending)
    assert answer.status_code == 200
    text = answer.content.decode()
    for hidden in ("orders", "inner", "hidden.example", "a?b"):
        assert hidden not in text


def test_a_stranger_sees_what_is_the_same_everywhere(client):
    text = client.get("/docs/reference/openapi").content.decode()
    assert "/v1/channels/{address}/events" in text
    assert "/v1/subscriptions" in text


def test_staff_without_the_permissions_see_no_more(client):
    user = User.objects.create_user("otto", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_route"))
    client.force_login(user)
    assert "orders" not in client.get("/docs/reference/openapi").content.decode()


def test_operators_see_all_routes_and_channels(operator, django_assert_max_num_queries):
    with django_assert_max_num_queries(6):
        calls = operator.get("/docs/reference/openapi").content.decode()
    assert "/orders/{id}" in calls
    assert "hidden.example" not in calls
    channels = operator.get("/docs/reference/asyncapi").content.decode()
    for text in ("inner/{id}", "a?b", "mqtt", "max_events", "https://x.example/a"):
        assert text in channels
    for page in (calls, channels):
        assert "<script>alert" not in page
        assert "<b>things" not in page


def test_operators_see_every_method_of_a_route_and_what_its_job_takes(operator):
    upstream = {"type": "upstream", "url": "http://hidden.example/"}
    create_route(name="dav", path="/dav", methods=["GET", "QUERY", "PROPFIND"], handler=upstream, by="ann")
    create_route(name="any", path="/any", methods=["*"], handler=upstream, by="ann")
    create_route(name="work", path="/work", methods=["POST"], handler={"type": "job", "job_type": "reports"}, by="ann")
    page = operator.get("/docs/reference/openapi").content.decode()
    assert {"dav-query", "dav-propfind", "any-get"} <= set(re.findall(r'id="([^"]+)"', page))
    document = json.loads(operator.get("/docs/reference/openapi.json").content)
    body = document["paths"]["/work"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/reports-input"}


def test_names_are_rendered_as_code(client):
    assert "the member <code>data</code> of the frames" in client.get("/docs/reference/asyncapi").content.decode()


def test_operators_can_download_the_documents(operator):
    document = json.loads(operator.get("/docs/reference/asyncapi.json").content)
    assert [channel["address"] for channel in document["channels"].values()] == [None, "inner/{id}"]


@pytest.mark.parametrize("path", ["/docs/reference/raml", "/docs/reference/raml.json"])
def test_every_other_reference_is_not_found(client, path):
    assert client.get(path).status_code == 404


def test_the_references_begin_with_what_can_be_called(client):
    assert client.get("/docs/reference/").url == "/docs/reference/openapi"
