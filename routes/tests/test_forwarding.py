"""How a route forwards its calls: each field is validated by name; the upstream's credential is never shown."""

import json

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.urls import reverse

from audit.models import Change
from audit.services import configuration_as_of, without_hidden
from audit.snapshot_documents import all_documents
from configuration.apply import apply_text
from configuration.export import export_text
from configuration.rollback import roll_back
from gateway.credentials.sealed import unseal
from gateway.snapshot.documents import READERS, credential_purpose
from operators.tests.conftest import api, operator  # noqa: F401 - fixtures
from routes.models import Route
from routes.services import create_route, delete_route, update_route

pytestmark = pytest.mark.django_db

UPSTREAM = {"type": "upstream", "url": "http://127.0.0.1:9/x"}
CHANNEL = {"type": "channel", "channel": "trades"}
SECRET = "sk-upstream-1234567890"
CREDENTIAL = {"header": "Authorization", "value": f"Bearer {SECRET}"}


def make(**fields):
    return create_route(**{"name": "ai", "path": "/ai", "handler": UPSTREAM, "by": "ann", **fields})


def opened(route):
    secret_key = settings.SECRET_KEY.encode()
    return json.loads(unseal(secret_key, credential_purpose(route.name), route.sealed_credential))


def as_read(route):
    return READERS["route"](route.document())


def test_left_out_fields_leave_everything_to_the_settings():
    route = as_read(make())
    assert (route.timeouts.connect_s, route.timeouts.first_byte_s, route.timeouts.idle_s) == (None, None, None)
    assert (route.preserve_host, route.rewrite_location, route.keeps_authorization) == (False, True, False)
    assert (route.idempotency, route.sealed_credential) == (False, "")


def test_the_fields_reach_the_data_plane():
    timeouts = {"connect_s": 1, "first_byte_s": 2.5, "idle_s": None}
    row = make(
        timeouts=timeouts, preserve_host=True, rewrite_location=False, upstream_authorization="keep", idempotency=True
    )
    route = as_read(row)
    assert row.timeouts == {"connect_s": 1, "first_byte_s": 2.5}
    assert (route.timeouts.connect_s, route.timeouts.first_byte_s, route.timeouts.idle_s) == (1, 2.5, None)
    assert (route.preserve_host, route.rewrite_location, route.keeps_authorization) == (True, False, True)
    assert route.idempotency is True


@pytest.mark.parametrize("handler", [{"type": "upstream", "url": "ws://127.0.0.1:9/x"}, CHANNEL])
def test_compression_is_asked_for_by_any_route_of_websockets(handler):
    assert as_read(make(protocol="websocket", handler=handler)).compression is False
    route = Route.objects.get()
    update_route(route, compression=True, by="ann")
    assert as_read(route).compression is True
    text = export_text()
    assert "compression: true" in text
    update_route(route, compression=False, by="ann")
    apply_text(text, "routes.yaml", by="ann")
    assert Route.objects.get().compression is True


@pytest.mark.parametrize(
    ("path", "wanted", "keeps"),
    [
        ("/a", "", False), ("/a/{id}", "", False), ("/{rest...}", "", True), ("/a/{rest...}", "refuse", False),
        ("/a/{id}", "keep", True),
    ],
)  # fmt: skip
def test_encoded_slashes_are_kept_by_default_where_a_parameter_takes_slashes(path, wanted, keeps):
    assert as_read(make(path=path, encoded_slashes=wanted)).keeps_encoded_slashes is keeps


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timeouts": []}, "timeouts"),
        ({"timeouts": {"read_s": 1}}, "timeouts.read_s"),
        ({"timeouts": {"connect_s": 0}}, "timeouts.connect_s"),
        ({"timeouts": {"idle_s": float("nan")}}, "timeouts.idle_s"),
        ({"timeouts": {"idle_s": float("inf")}}, "timeouts.idle_s"),
        ({"timeouts": {"idle_s": True}}, "timeouts.idle_s"),
        ({"timeouts": {"first_byte_s": "5"}}, "timeouts.first_byte_s"),
        ({"timeouts": {"first_byte_s": 86_401}}, "timeouts.first_byte_s"),
        ({"preserve_host": "yes"}, "preserve_host"),
        ({"rewrite_location": None}, "rewrite_location"),
        ({"idempotency": 1}, "idempotency"),
        ({"idempotency": True, "methods": ["GET"]}, "idempotency"),
        ({"idempotency": True, "protocol": "sse"}, "idempotency"),
        ({"compression": 1, "protocol": "websocket"}, "compression"),
        ({"compression": True}, "compression"),
        ({"encoded_slashes": "decode"}, "encoded_slashes"),
        ({"encoded_slashes": None}, "encoded_slashes"),
        ({"upstream_authorization": ""}, "upstream_authorization"),
        ({"upstream_credential": SECRET}, "upstream_credential"),
        ({"upstream_credential": {"header": "X-Key"}}, "upstream_credential"),
        ({"upstream_credential": CREDENTIAL | {"in": "query"}}, "upstream_credential"),
        ({"upstream_credential": CREDENTIAL | {"header": "x key"}}, "upstream_credential.header"),
        ({"upstream_credential": CREDENTIAL | {"header": "Host"}}, "upstream_credential.header"),
        ({"upstream_credential": CREDENTIAL | {"header": "X-Consumer-Name"}}, "upstream_credential.header"),
        ({"upstream_credential": CREDENTIAL | {"value": "a\r\nx: y"}}, "upstream_credential.value"),
        ({"upstream_credential": CREDENTIAL | {"value": ""}}, "upstream_credential.value"),
        ({"upstream_credential": CREDENTIAL | {"value": " a"}}, "upstream_credential.value"),
        ({"upstream_credential": CREDENTIAL | {"value": "ä"}}, "upstream_credential.value"),
        ({"upstream_credential": CREDENTIAL | {"value": "a" * 8_001}}, "upstream_credential.value"),
        ({"handler": CHANNEL, "timeouts": {"idle_s": 1}}, "timeouts"),
        ({"handler": CHANNEL, "preserve_host": True}, "preserve_host"),
        ({"handler": CHANNEL, "rewrite_location": False}, "rewrite_location"),
        ({"handler": CHANNEL, "upstream_authorization": "keep"}, "upstream_authorization"),
        ({"handler": CHANNEL, "idempotency": True}, "idempotency"),
        ({"handler": CHANNEL, "upstream_credential": CREDENTIAL}, "upstream_credential"),
    ],
)
def test_an_error_names_its_field_and_not_its_value(fields, field):
    with pytest.raises(ValidationError) as fault:
        make(**fields)
    assert list(fault.value.message_dict) == [field]
    assert SECRET not in str(fault.value)
    assert not Route.objects.exists()


def test_a_credential_is_encrypted_and_shown_nowhere(tmp_path):
    route = make(upstream_credential=CREDENTIAL)
    assert opened(route) == {"header": "authorization", "value": f"Bearer {SECRET}"}
    held = json.dumps([all_documents()["route", "ai"], *Change.objects.values_list("before", "after")])
    assert SECRET not in held
    shown = json.dumps([route.representation(), *map(without_hidden, Change.objects.values_list("after", flat=True))])
    assert SECRET not in shown
    assert route.sealed_credential not in shown
    assert SECRET not in export_text()
    assert route.sealed_credential not in export_text()


def test_the_same_credential_again_changes_nothing_and_another_is_recorded():
    route = make(upstream_credential=CREDENTIAL)
    before = route.upstream_credential_id
    update_route(route, upstream_credential=CREDENTIAL, by="bob")
    assert (Change.objects.count(), Route.objects.get().upstream_credential_id) == (1, before)
    update_route(route, upstream_credential=CREDENTIAL | {"value": "Bearer other"}, by="bob")
    assert Change.objects.count() == 2
    assert Route.objects.get().upstream_credential_id not in ("", before)
    update_route(route, upstream_credential=None, by="bob")
    assert Route.objects.get().upstream_credential_id == ""


def test_a_credential_that_can_no_longer_be_opened_is_replaced(settings):
    route = make(upstream_credential=CREDENTIAL)
    settings.SECRET_KEY = "another-secret-key-of-32-characters"
    update_route(route, upstream_credential=CREDENTIAL, by="bob")
    assert opened(Route.objects.get())["value"] == f"Bearer {SECRET}"


def test_a_document_sets_a_credential_keeps_it_where_it_is_left_out_and_removes_it_by_null():
    document = json.dumps(
        {"routes": [{"name": "ai", "path": "/ai", "handler": UPSTREAM} | {"upstream_credential": CREDENTIAL}]}
    )
    assert apply_text(document, "a.yaml", by="ann")
    assert not apply_text(document, "a.yaml", by="ann")
    assert not apply_text(export_text(), "export.yaml", by="ann")
    assert opened(Route.objects.get())["value"] == f"Bearer {SECRET}"
    diff = apply_text(document.replace(SECRET, "other"), "a.yaml", by="ann")
    assert [name for name, *_ in diff.entries[0].fields()] == ["upstream_credential_id"]
    assert apply_text(document.replace(json.dumps(CREDENTIAL), "null"), "a.yaml", by="ann")
    assert Route.objects.get().sealed_credential == ""


def test_a_rollback_restores_a_credential():
    route = make(upstream_credential=CREDENTIAL)
    at = Change.objects.latest("id").at
    update_route(route, upstream_credential=None, by="bob")
    roll_back(at, by="ann")
    assert opened(Route.objects.get())["value"] == f"Bearer {SECRET}"
    delete_route(Route.objects.get(), by="bob")
    roll_back(at, by="ann")
    assert opened(Route.objects.get())["value"] == f"Bearer {SECRET}"
    assert configuration_as_of(at)["route", "ai"] == Route.objects.get().recorded()


def test_the_api_takes_the_fields_and_never_answers_with_the_credential(api):  # noqa: F811 - the fixture
    fields = {"timeouts": {"idle_s": 9}, "preserve_host": True, "encoded_slashes": "refuse", "idempotency": True}
    body = {"name": "ai", "path": "/ai", "handler": UPSTREAM, "upstream_credential": CREDENTIAL, **fields}
    made = api.post("/api/v1/routes/", body)
    assert made.status_code == 201, made.content
    assert fields.items() <= made.json().items()
    for answer in (made, api.get("/api/v1/routes/ai"), api.get("/api/v1/audit/"), api.get("/api/v1/routes/")):
        assert SECRET not in answer.content.decode()
        assert Route.objects.get().sealed_credential not in answer.content.decode()
    assert made.json()["upstream_credential_id"] == Route.objects.get().upstream_credential_id != ""
    assert api.patch("/api/v1/routes/ai", {"path": "/b"}).json()["upstream_credential_id"] != ""
    assert api.patch("/api/v1/routes/ai", {"upstream_credential": None}).json()["upstream_credential_id"] == ""
    refused = api.patch("/api/v1/routes/ai", {"timeouts": {"idle_s": -1}})
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["timeouts.idle_s"])


def test_the_form_sets_a_credential_and_never_shows_it(client, operator):  # noqa: F811 - the fixture
    client.force_login(operator)
    form = {
        "name": "ai", "path": "/ai", "protocol": "http", "handler_type": "upstream", "handler_url": UPSTREAM["url"],
        "policies-total": "0", "rewrite_location": "on", "upstream_authorization": "drop", "timeouts_idle_s": "7",
    }  # fmt: skip
    header, value = CREDENTIAL["header"], CREDENTIAL["value"]
    credential = {"upstream_credential_header": header, "upstream_credential_value": value}
    answer = client.post(reverse("admin:routes_route_add"), form | credential)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    route = Route.objects.get()
    assert (route.timeouts, opened(route)["value"]) == ({"idle_s": 7}, value)
    change = reverse("admin:routes_route_change", args=[route.pk])
    assert SECRET not in client.get(change).content.decode()
    assert client.post(change, form | {"path": "/b"}).status_code == 302
    assert (Route.objects.get().path, opened(Route.objects.get())["value"]) == ("/b", value)
    assert client.post(change, form | {"removes_upstream_credential": "on"}).status_code == 302
    assert Route.objects.get().sealed_credential == ""
