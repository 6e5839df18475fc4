import base64

import pytest
from django.utils import timezone

from audit.models import Change
from consumers.services import create_consumer, update_tier
from events.services import create_channel
from keys.services import issue_key
from operators.tests.api_cases import ISSUER, UPSTREAM, dead_letter, problem

COLLECTIONS = [
    "tiers", "consumers", "keys", "routes", "channels", "dead-letters", "issuers", "subscriptions", "connectors",
    "schemas", "audit",
]  # fmt: skip


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_every_list_is_paged_and_refuses_unknown_filters_by_name(api, collection):
    query = "?kind=tier" if collection == "audit" else ""  # the operator and its token are recorded
    assert api.get(f"/api/v1/{collection}/{query}").json() == {"results": [], "next": None}
    reply = problem(api.get(f"/api/v1/{collection}/?colour=red"), 400, "invalid-request")
    assert list(reply["errors"]) == ["colour"]
    problem(api.get(f"/api/v1/{collection}/?limit=0"), 400, "invalid-request")
    problem(api.get(f"/api/v1/{collection}/?cursor=%FF"), 400, "invalid-request")


@pytest.mark.parametrize("position", ["p=abc", "p=9" + "9" * 30, "p=%00", "o=-1", "o=x", "r=2&p=", "p=" + "x" * 5000])
@pytest.mark.parametrize("collection", ["audit", "keys", "tiers"])
def test_an_invalid_cursor_is_refused(api, consumer, position, collection):
    issue_key(consumer=consumer, by="test")
    cursor = base64.b64encode(position.encode()).decode()
    assert api.get(f"/api/v1/{collection}/", {"cursor": cursor}).status_code in (200, 400)


@pytest.mark.parametrize(
    ("collection", "body", "name"),
    [
        ("tiers", {"name": "free", "description": "Small"}, "free"),
        ("consumers", {"name": "acme", "tier": "gold", "metadata": {"plan": 1}}, "acme"),
        ("routes", {"name": "a", "path": "/a/{rest...}", "handler": UPSTREAM}, "a"),
        ("channels", {"address": "sensors/{id}/heat", "schema": {"type": "object"}}, "sensors%2F%7Bid%7D%2Fheat"),
        ("issuers", ISSUER, "idp"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_objects_are_made_read_changed_and_deleted_with_their_audit_record(api, tier, collection, body, name, slash):
    made = api.post(f"/api/v1/{collection}{slash}", body)
    assert made.status_code == 201, made.content
    assert body.items() <= made.json().items()
    address = f"/api/v1/{collection}/{name}{slash}"
    assert api.get(address).json() == made.json()
    assert api.get(made["location"]).json() == made.json()
    field = {"tiers": "description", "consumers": "email", "channels": "title", "issuers": "audience"}.get(
        collection, "path"
    )
    value = {"email": "ops@acme.example", "path": "/b"}.get(field, "changed")
    changed = api.patch(address, {field: value})
    assert (changed.status_code, changed.json()[field]) == (200, value)
    assert api.delete(address).status_code == 204
    problem(api.get(address), 404, "not-found")
    by_olga = Change.objects.filter(actor="olga").values_list("action", flat=True)
    assert list(by_olga) == ["deleted", "updated", "created"]


@pytest.mark.parametrize(
    ("collection", "body"),
    [
        ("tiers", {"name": "free"}),
        ("consumers", {"name": "other", "tier": "gold"}),
        ("routes", {"name": "a", "path": "/a", "handler": UPSTREAM}),
        ("channels", {"address": "trades"}),
        ("issuers", ISSUER),
        ("consumers/acme/keys", {"name": "laptop"}),
        ("keys/leaked", {"key": "apim_x"}),
    ],
)
def test_unknown_fields_are_refused_by_name(api, consumer, collection, body):
    reply = problem(api.post(f"/api/v1/{collection}/", {**body, "colour": "red"}), 400, "invalid-request")
    assert list(reply["errors"]) == ["colour"]
    assert "colour" in reply["detail"]


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("patch", "tiers/gold"),
        ("patch", "consumers/acme"),
        ("post", "keys/{key}/rotate"),
        ("post", "keys/{key}/revoke"),
    ],
)
def test_unknown_fields_of_changes_are_refused_too(api, consumer, method, address):
    key, _ = issue_key(consumer=consumer, by="test")
    answer = getattr(api, method)(f"/api/v1/{address.format(key=key.id)}/", {"colour": "red"})
    assert problem(answer, 400, "invalid-request")["errors"].keys() == {"colour"}
    key.refresh_from_db()
    assert key.revoked_at is None


def test_a_name_cannot_be_changed(api, tier):
    assert api.patch("/api/v1/tiers/gold", {"name": "gold"}).status_code == 200
    problem(api.patch("/api/v1/tiers/gold", {"name": "silver"}), 400, "invalid-request")


def test_a_tier_in_use_is_not_deleted(api, consumer):
    reply = problem(api.delete("/api/v1/tiers/gold/"), 400, "invalid-request")
    assert "acme" in reply["detail"]


def test_lists_are_read_page_by_page(api, tier):
    for number in range(5):
        create_consumer(name=f"c{number}", tier=tier, by="test")
    seen, address = [], "/api/v1/consumers/?limit=2&tier=gold"
    while address:
        page = api.get(address).json()
        seen += [consumer["name"] for consumer in page["results"]]
        address = page["next"]
    assert seen == ["c0", "c1", "c2", "c3", "c4"]


@pytest.mark.parametrize("collection", ["tiers", "consumers", "keys", "routes", "channels", "dead-letters", "audit"])
def test_a_list_costs_as_many_queries_for_many_rows_as_for_one(api, tier, django_assert_max_num_queries, collection):
    for number in range(20):
        consumer = create_consumer(name=f"c{number}", tier=tier, by="test")
        issue_key(consumer=consumer, by="test")
        create_channel(address=f"a/{number}", by="test")
        dead_letter(sequence=number)
    api.get(f"/api/v1/{collection}/")  # stores when the token was used, once a minute
    with django_assert_max_num_queries(2):  # the token with its user, the page
        assert len(api.get(f"/api/v1/{collection}/").json()["results"]) in (0, 1, 20, 63)


def test_the_audit_log_tells_what_stood_at_an_instant(api, tier):
    update_tier(tier, description="first", by="ann")
    instant = timezone.now().isoformat()
    update_tier(tier, description="second", by="ben")
    assert api.get("/api/v1/audit/?actor=ben").json()["results"][0]["after"]["description"] == "second"
    (then,) = api.get("/api/v1/audit/", {"as_of": instant, "kind": "tier"}).json()["results"]
    assert then["after"]["description"] == "first"
    problem(api.get("/api/v1/audit/?as_of=yesterday"), 400, "invalid-request")
    problem(api.delete(f"/api/v1/audit/{then['id']}"), 405, "method-not-allowed")


def test_the_description_is_served_and_names_every_collection(client, db):
    for address in ("/api/v1/schema/", "/api/v1/schema"):
        reply = client.get(address).json()
        assert reply["openapi"].startswith("3.")
    for collection in COLLECTIONS:
        assert f"/api/v1/{collection}/" in reply["paths"]
    assert "Problem" in reply["components"]["schemas"]
