import base64
import json

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from rest_framework.test import APIClient

from audit import bus
from audit.models import Change
from consumers.models import Consumer
from consumers.services import create_consumer, update_tier
from events import letters
from events.models import Channel, DeadLetter
from events.services import create_channel
from gateway.credentials.api_keys import parse
from keys.models import Key
from keys.services import issue_key
from operators.tokens import issue_token
from routes.models import Route

UPSTREAM = {"type": "upstream", "url": "http://upstream.example/a"}
ISSUER = {"name": "idp", "issuer": "https://idp.example", "jwks_url": "https://idp.example/jwks", "audience": "api"}
COLLECTIONS = [
    "tiers", "consumers", "keys", "routes", "channels", "dead-letters", "issuers", "subscriptions", "connectors",
    "schemas", "audit",
]  # fmt: skip


def problem(answer, status, reason):
    assert answer.status_code == status, answer.content
    assert answer["content-type"] == "application/problem+json"
    said = answer.json()
    assert (said["status"], said["reason"], said["type"]) == (status, reason, f"/docs/refusals#{reason}")
    return said


def dead_letter(**fields):
    row = {
        "made_at": "2026-01-01T00:00:00Z",
        "sequence": 1,
        "channel": "trades",
        "address": "trades",
        "reason": "invalid-payload",
        "detail": "not a number",
        "event": {"data": {"value": "warm"}},
        "dead_at": timezone.now(),
    }
    return DeadLetter.objects.create(**row | fields)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_every_list_is_paged_and_refuses_unknown_filters_by_name(api, collection):
    assert api.get(f"/api/v1/{collection}/").json() == {"results": [], "next": None}
    said = problem(api.get(f"/api/v1/{collection}/?colour=red"), 400, "invalid-request")
    assert list(said["errors"]) == ["colour"]
    problem(api.get(f"/api/v1/{collection}/?limit=0"), 400, "invalid-request")
    problem(api.get(f"/api/v1/{collection}/?cursor=%FF"), 400, "invalid-request")


@pytest.mark.parametrize("position", ["p=abc", "p=9" + "9" * 30, "p=%00", "o=-1", "o=x", "r=2&p=", "p=" + "x" * 5000])
@pytest.mark.parametrize("collection", ["audit", "keys", "tiers"])
def test_no_cursor_makes_a_fault(api, consumer, position, collection):
    issue_key(consumer=consumer, by="test")
    cursor = base64.b64encode(position.encode()).decode()
    assert api.get(f"/api/v1/{collection}/", {"cursor": cursor}).status_code in (200, 400)


@pytest.mark.parametrize(
    ("collection", "body", "name"),
    [
        ("tiers", {"name": "free", "description": "Small", "limits": []}, "free"),
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
    said = problem(api.post(f"/api/v1/{collection}/", {**body, "colour": "red"}), 400, "invalid-request")
    assert list(said["errors"]) == ["colour"]
    assert "colour" in said["detail"]


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


def test_a_fault_deep_in_a_field_is_named_by_its_path(api):
    limits = [{"metric": "requests", "amount": 5, "per": 1}, {"metric": "requests", "amount": -1, "per": 1}]
    said = problem(api.post("/api/v1/tiers/", {"name": "t", "limits": limits}), 400, "invalid-request")
    assert said["errors"] == {"limits[1].amount": ["Must be a number greater than 0."]}


def test_a_name_cannot_be_changed(api, tier):
    assert api.patch("/api/v1/tiers/gold", {"name": "gold"}).status_code == 200
    problem(api.patch("/api/v1/tiers/gold", {"name": "silver"}), 400, "invalid-request")


def test_a_tier_in_use_is_not_deleted(api, consumer):
    said = problem(api.delete("/api/v1/tiers/gold/"), 400, "invalid-request")
    assert "acme" in said["detail"]


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
    with django_assert_max_num_queries(2):  # the token with its user, the page
        assert len(api.get(f"/api/v1/{collection}/").json()["results"]) in (0, 1, 20, 61)


def test_a_key_is_shown_once_and_never_again(api, consumer):
    made = api.post("/api/v1/consumers/acme/keys", {"name": "laptop", "scopes": ["call:*"]})
    assert made.status_code == 201
    assert made["cache-control"] == "no-store"
    said = made.json()
    text = said["key"]
    assert parse(text) == said["id"]
    assert (said["consumer"], said["scopes"], said["revoked_at"]) == ("acme", ["call:*"], None)
    elsewhere = [f"keys/{said['id']}", "keys", "consumers/acme/keys", "audit", "consumers/acme"]
    for address in elsewhere:
        told = api.get(f"/api/v1/{address}/").content.decode()
        assert text not in told
        assert Key.objects.get().digest not in told
        assert "digest" not in told


def test_a_key_is_rotated_with_an_overlap_and_revoked(api, consumer):
    old, _ = issue_key(consumer=consumer, name="ci", scopes=["call:*"], by="test")
    rotated = api.post(f"/api/v1/keys/{old.id}/rotate", {"overlap_s": 3600})
    assert rotated.status_code == 201
    assert rotated.json()["rotated_from"] == old.id
    old.refresh_from_db()
    assert 3500 < (old.expires_at - timezone.now()).total_seconds() <= 3600
    new = rotated.json()["id"]
    revoked = api.post(f"/api/v1/keys/{new}/revoke/", {"reason": "left the company"}).json()
    assert revoked["revoked_at"] is not None
    assert revoked["revoked_reason"] == "left the company"
    assert [key["id"] for key in api.get("/api/v1/keys/?state=revoked&consumer=acme").json()["results"]] == [new]
    assert [key["id"] for key in api.get("/api/v1/keys/?state=active").json()["results"]] == [old.id]
    problem(api.post(f"/api/v1/keys/{new}/rotate", {"overlap_s": -1}), 400, "invalid-request")
    problem(api.post(f"/api/v1/keys/{new}/rotate", {}), 400, "invalid-request")


def test_a_key_found_in_public_is_revoked_by_its_text(api, consumer):
    key, text = issue_key(consumer=consumer, by="test")
    assert api.post("/api/v1/keys/leaked", {"key": text[:-1]}).json() == {"revoked": False, "id": None}
    assert api.post("/api/v1/keys/leaked", {"key": text}).json() == {"revoked": True, "id": key.id}
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_a_key_that_is_deleted_is_gone_from_lists_and_told_in_the_audit_log(api, consumer):
    key, _ = issue_key(consumer=consumer, by="test")
    assert api.delete(f"/api/v1/keys/{key.id}").status_code == 204
    problem(api.get(f"/api/v1/keys/{key.id}"), 404, "not-found")
    problem(api.delete(f"/api/v1/keys/{key.id}/"), 404, "not-found")
    assert api.get("/api/v1/keys/?consumer=acme").json()["results"] == []
    told = api.get(f"/api/v1/audit/?kind=key&name={key.id}").json()["results"]
    assert [change["action"] for change in told] == ["deleted", "updated", "created"]


def test_keys_are_changed_but_not_made_by_their_id(api, consumer):
    key, _ = issue_key(consumer=consumer, by="test")
    changed = api.patch(f"/api/v1/keys/{key.id}", {"scopes": ["publish:*"], "expires_at": "2999-01-01T00:00:00Z"})
    assert changed.json()["scopes"] == ["publish:*"]
    assert changed.json()["expires_at"] == "2999-01-01T00:00:00Z"
    problem(api.patch(f"/api/v1/keys/{key.id}", {"revoked_at": None}), 400, "invalid-request")
    problem(api.post("/api/v1/keys/", {}), 405, "method-not-allowed")
    problem(api.post("/api/v1/consumers/nobody/keys", {}), 404, "not-found")


def test_dead_letters_are_filtered_redriven_and_discarded(api, monkeypatch):
    create_channel(address="trades", by="test")
    first, second = dead_letter(), dead_letter(sequence=2, channel="other", address="other")
    stored = []
    monkeypatch.setattr(bus, "store", lambda subject, data, headers: stored.append((subject, json.loads(data))))
    (found,) = api.get("/api/v1/dead-letters/?channel=trades&reason=invalid-payload").json()["results"]
    assert (found["id"], found["event"]) == (first.id, {"data": {"value": "warm"}})
    assert api.post(f"/api/v1/dead-letters/{first.id}/redrive/").status_code == 204
    assert stored == [("trades", {"value": "warm"})]
    problem(api.post(f"/api/v1/dead-letters/{second.id}/redrive"), 400, "invalid-request")
    assert api.delete(f"/api/v1/dead-letters/{second.id}").status_code == 204
    assert not DeadLetter.objects.exists()


def test_dead_letters_are_redriven_and_discarded_by_their_filters(api, monkeypatch):
    create_channel(address="trades", schema={"type": "object"}, by="test")
    for number in range(3):
        dead_letter(sequence=number, event={"data": {"n": number}})
    refused = dead_letter(sequence=3, event={"data": 5})
    other = dead_letter(sequence=4, channel="other", address="other", event={"data": {}})
    stored = []
    monkeypatch.setattr(bus, "store_all", stored.extend)
    problem(api.post("/api/v1/dead-letters/redrive?colour=red"), 400, "invalid-request")
    problem(api.post("/api/v1/dead-letters/discard?colour=red"), 400, "invalid-request")
    problem(
        api.post("/api/v1/dead-letters/redrive?channel=trades", {"how": "now"}, format="json"), 400, "invalid-request"
    )
    said = api.post("/api/v1/dead-letters/redrive?channel=trades").json()
    assert (said["done"], said["left"]) == (3, 1)
    assert [json.loads(data) for _, data, _ in stored] == [{"n": 0}, {"n": 1}, {"n": 2}]
    (kept,) = said["refused"]
    assert kept["id"] == refused.id
    assert "schema refuses it still" in kept["detail"]
    said = api.post("/api/v1/dead-letters/redrive?channel=trades", {"as_is": True}, format="json").json()
    assert (said["done"], said["left"]) == (1, 0)
    assert DeadLetter.objects.get() == other
    assert api.post("/api/v1/dead-letters/discard/?channel=none").json() == {"done": 0, "refused": [], "left": 0}
    assert api.post("/api/v1/dead-letters/discard").json() == {"done": 1, "refused": [], "left": 0}
    assert Change.objects.filter(kind="dead-letter").count() == 5


def test_an_engine_that_is_away_is_a_503_with_retry_after(api, monkeypatch):
    def away(*args, **kwargs):
        raise bus.Unavailable("no answer")

    monkeypatch.setattr(bus, "store", away)
    create_channel(address="trades", by="test")
    letter = dead_letter()
    answer = api.post(f"/api/v1/dead-letters/{letter.id}/redrive")
    assert problem(answer, 503, "overloaded")["retry_after_s"] == 1.0
    assert answer["retry-after"] == "1"
    assert DeadLetter.objects.exists()


def test_a_fault_of_ours_is_told_without_detail(api, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("secret inner detail")

    monkeypatch.setattr(letters, "discard", broken)
    said = problem(api.delete(f"/api/v1/dead-letters/{dead_letter().id}"), 500, "internal")
    assert "secret" not in json.dumps(said)
    assert "secret inner detail" in caplog.text


def test_the_audit_log_tells_what_stood_at_an_instant(api, tier):
    update_tier(tier, description="first", by="ann")
    instant = timezone.now().isoformat()
    update_tier(tier, description="second", by="ben")
    assert api.get("/api/v1/audit/?actor=ben").json()["results"][0]["after"]["description"] == "second"
    (then,) = api.get("/api/v1/audit/", {"as_of": instant, "kind": "tier"}).json()["results"]
    assert then["after"]["description"] == "first"
    problem(api.get("/api/v1/audit/?as_of=yesterday"), 400, "invalid-request")
    problem(api.delete(f"/api/v1/audit/{then['id']}"), 405, "method-not-allowed")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b'{"name": NaN}',
        b'{"name": "a", "name": "b"}',
        b'{"metadata": ' + b"[" * 100_000,
        b'{"name": "\\ud800", "tier": "gold"}',
        b'{"name": "a\\u0000", "tier": "gold"}',
        b"\xff\xfe",
        b'{"name": "a", "tier": "gold", "metadata": {"n": ' + b"9" * 500 + b"}}",
        b'{"name": {"a": 1}, "tier": ["gold"], "is_active": "perhaps"}',
    ],
)
def test_a_body_that_is_no_plain_object_is_refused(api, tier, body):
    problem(api.generic("POST", "/api/v1/consumers/", body, content_type="application/json"), 400, "invalid-request")
    assert not Consumer.objects.exists()


def test_a_body_too_large_or_of_another_type_is_refused(api):
    body = json.dumps({"name": "a", "description": "x" * 1_100_000})
    problem(api.generic("POST", "/api/v1/tiers/", body, content_type="application/json"), 413, "too-large")
    problem(api.generic("POST", "/api/v1/tiers/", "a=b", content_type="text/plain"), 415, "invalid-request")


@pytest.mark.parametrize("address", ["nothing", "tiers/a/b/c", "", "tiers/none", "channels/none", "keys/none/revoke"])
def test_an_address_with_nothing_at_it_is_a_problem_too(api, address):
    answer = api.post(f"/api/v1/{address}") if address.endswith("revoke") else api.get(f"/api/v1/{address}")
    problem(answer, 404, "not-found")


@pytest.mark.parametrize(
    "address", ["nothing", "dead-letters/x/redrive", "dead-letters/" + "9" * 30, "connections/x/y"]
)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_an_address_with_nothing_at_it_is_a_problem_for_every_method(operator, address, method):
    client = APIClient(enforce_csrf_checks=True)
    client.credentials(HTTP_AUTHORIZATION=f"Token {issue_token(operator)}")
    problem(getattr(client, method)(f"/api/v1/{address}"), 404, "not-found")


def test_strangers_consumers_and_users_without_staff_stay_outside(api, consumer, db):
    _, text = issue_key(consumer=consumer, scopes=["call:*", "publish:*"], by="test")
    user = User.objects.create_user("eve", password="x")
    token = issue_token(user)
    for headers in (
        {},
        {"HTTP_AUTHORIZATION": f"Bearer {text}"},
        {"HTTP_AUTHORIZATION": f"Token {text}"},
        {"HTTP_AUTHORIZATION": "Token"},
        {"HTTP_X_API_KEY": text},
    ):
        answer = APIClient().get("/api/v1/consumers/", **headers)
        problem(answer, 401, "unauthenticated")
        assert answer["www-authenticate"] == "Token"
    problem(APIClient().get("/api/v1/tiers", HTTP_AUTHORIZATION=f"Token {token}"), 403, "forbidden")


def test_staff_may_do_what_their_permissions_say(consumer):
    user = User.objects.create_user("sam", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_consumer"))
    client = APIClient()
    client.force_login(user)
    assert client.get("/api/v1/consumers/acme").status_code == 200
    problem(client.patch("/api/v1/consumers/acme", {"email": "a@b.example"}), 403, "forbidden")
    problem(client.get("/api/v1/consumers/acme/keys"), 403, "forbidden")
    problem(client.post("/api/v1/keys/leaked", {"key": "x"}), 403, "forbidden")


def test_a_session_writes_with_a_csrf_token_only(operator):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(operator)
    assert client.get("/api/v1/tiers").status_code == 200
    problem(client.post("/api/v1/tiers", {"name": "t"}), 403, "forbidden")


def test_the_description_is_served_and_names_every_collection(client, db):
    for address in ("/api/v1/schema/", "/api/v1/schema"):
        said = client.get(address).json()
        assert said["openapi"].startswith("3.")
    for collection in COLLECTIONS:
        assert f"/api/v1/{collection}/" in said["paths"]
    assert "Problem" in said["components"]["schemas"]


def test_routes_and_channels_say_what_is_wrong_with_them(api):
    bad_route = {"name": "r", "path": "/v1/x", "handler": UPSTREAM}
    assert problem(api.post("/api/v1/routes", bad_route), 400, "invalid-request")["errors"].keys() == {"path"}
    bad_channel = {"address": "a/*"}
    assert problem(api.post("/api/v1/channels", bad_channel), 400, "invalid-request")["errors"].keys() == {"address"}
    assert not Route.objects.exists()
    assert not Channel.objects.exists()


JUNK = [None, True, -1, 0, 1.5, 10**30, 10**400, "", "x" * 5000, "\x00", [], [[]], {}, {"a": {}}, ["a"], "NaN", "-"]
SUBSCRIPTION_FIELDS = [
    "consumer", "key", "type", "channel", "url", "order", "max_in_flight", "max_attempts", "retry_schedule_s",
    "ack_wait_s", "alert_url", "alert_lag_events", "alert_lag_s", "from", "state",
]  # fmt: skip


@pytest.mark.parametrize("name", SUBSCRIPTION_FIELDS)
def test_no_value_of_a_subscriptions_field_makes_a_fault(api, consumer, settings, name):
    settings.NATS_URL = ""
    create_channel(address="trades", by="test")
    whole = {"consumer": consumer.name, "type": "pull", "channel": "trades", "from": "earliest"}
    made = api.post("/api/v1/subscriptions/", whole, format="json")
    assert made.status_code == 201, made.content
    for value in JUNK:
        for answer in (
            api.post("/api/v1/subscriptions/", {**whole, name: value}, format="json"),
            api.patch(f"/api/v1/subscriptions/{made.json()['id']}", {name: value}, format="json"),
            api.post(f"/api/v1/subscriptions/{made.json()['id']}/rotate", {"overlap_s": value}, format="json"),
        ):
            assert answer.status_code < 500 or answer.json()["reason"] == "overloaded", (value, answer.content)
