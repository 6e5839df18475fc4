"""The schema registry as operators see it: the management API and the admin."""

import pytest

from events.registry import register
from events.registry_schemas import parse_submitted
from operators.tests.conftest import api  # noqa: F401

pytestmark = pytest.mark.django_db
SCHEMA = {"schema": '{"type": "object"}', "schemaType": "JSON"}


@pytest.fixture
def subject():
    return register("orders/eu", parse_submitted(SCHEMA), by="acme (k)").subject


def test_a_subject_is_read_and_its_level_is_set(api, subject):  # noqa: F811
    row = api.get("/api/v1/schemas/orders%2Feu").json()
    assert row["latest"].pop("id")
    assert row == {
        "name": "orders/eu", "compatibility": "BACKWARD", "mode": "READWRITE", "versions": [1],
        "latest": {"version": 1, "type": "JSON", "schema": '{"type": "object"}'},
    }  # fmt: skip
    assert [one["name"] for one in api.get("/api/v1/schemas/").json()["results"]] == ["orders/eu"]
    changed = api.patch("/api/v1/schemas/orders%2Feu", {"compatibility": "FULL"})
    assert (changed.status_code, changed.json()["compatibility"]) == (200, "FULL")
    assert api.patch("/api/v1/schemas/orders%2Feu", {"compatibility": "SIDEWAYS"}).status_code == 400
    assert api.patch("/api/v1/schemas/orders%2Feu", {"versions": []}).status_code == 400


def test_the_defaults_of_all_subjects_are_set_by_operators(api, subject):  # noqa: F811
    assert api.get("/api/v1/schemas/*").json() | {"latest": None} == {
        "name": "*", "compatibility": "BACKWARD", "mode": "READWRITE", "versions": [], "latest": None,
    }  # fmt: skip
    assert api.patch("/api/v1/schemas/*", {"compatibility": "FULL"}).json()["compatibility"] == "FULL"
    assert api.get("/api/v1/schemas/orders%2Feu").json()["compatibility"] == "FULL"
    assert [one["name"] for one in api.get("/api/v1/schemas/").json()["results"]] == ["orders/eu"]


def test_the_admin_shows_subjects_and_their_versions(admin_client, subject):
    assert "orders/eu" in admin_client.get("/admin/events/subject/").content.decode()
    page = admin_client.get(f"/admin/events/subject/{subject.pk}/change/").content.decode()
    assert "version 1" in page
