import json
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from accounts.tests.tokens import token_of
from audit.models import Change
from audit.services import configuration_as_of
from audit.snapshot_documents import all_documents, snapshot_document
from audit.tests.histories import HISTORIES, UPSTREAM
from configuration.rollback import roll_back
from consumers.models import Consumer, Tier
from consumers.services import create_consumer, create_tier, delete_consumer, update_consumer, update_tier
from events.models import Channel
from events.services import create_channel, delete_channel
from keys.models import Key
from keys.services import delete_key, issue_key, revoke_key, rotate_key, update_key
from routes.models import Route
from routes.services import create_route, delete_route, update_route

pytestmark = pytest.mark.django_db

ENDED_BY = ("expires_at", "revoked_at", "revoked_reason")


def settled(documents):
    """Return what a rollback restores: everything but keys and the registry."""
    return {which: document for which, document in documents.items() if which[0] not in ("key", "schema")}


def schemas(documents):
    return {which: document for which, document in documents.items() if which[0] == "schema"}


def back(instant, **options):
    return roll_back(instant, by="ann", **options)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(HISTORIES, st.data())
def test_any_history_can_be_rolled_back_to_any_of_its_instants(history, data):
    with history.lived() as lived:
        pictures = [(at, all_documents()) for at in lived]
        keys = {key.id: key.recorded() for key in Key.objects.all()}
        instant, picture = data.draw(st.sampled_from(pictures))
        foreseen = back(instant, dry_run=True)
        assert all_documents() == pictures[-1][1]
        assert back(instant).entries == foreseen.entries
        assert settled(all_documents()) == settled(picture)
        assert schemas(all_documents()) == schemas(pictures[-1][1])
        assert not back(instant)
        log = configuration_as_of(timezone.now())
        assert {which: snapshot_document(which[0], one) for which, one in log.items()} == all_documents()
        for key in Key.objects.all():
            then = picture.get(("key", key.id))
            if key.id in keys:
                assert {name: key.recorded()[name] for name in ENDED_BY} == {
                    name: keys[key.id][name] for name in ENDED_BY
                }
            if then is not None:
                assert (key.digest, key.scopes) == (then["digest"], then["scopes"])
        assert {key_id for kind, key_id in picture if kind == "key"} <= {key.id for key in Key.objects.all()}


@pytest.fixture
def consumer(db):
    return create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")


def test_a_consumer_that_was_deleted_comes_back_with_its_keys_as_they_ended(consumer):
    key, _ = issue_key(consumer=consumer, scopes=["call:*"], by="ann")
    lost, _ = issue_key(consumer=consumer, by="ann")
    turned, _ = issue_key(consumer=consumer, by="ann")
    new, _ = rotate_key(turned, overlap_s=60, by="ann")
    instant = timezone.now()
    revoke_key(lost, reason="lost", by="ann")
    delete_consumer(consumer, by="bob")
    back(instant)
    assert Consumer.objects.get().tier.name == "gold"
    again = Key.objects.get(id=key.id)
    assert (again.digest, again.scopes, again.revoked_at) == (key.digest, ["call:*"], None)
    assert Key.objects.get(id=lost.id).revoked_reason == "lost"
    assert Key.objects.get(id=lost.id).revoked_at is not None
    turned.refresh_from_db()
    assert Key.objects.get(id=turned.id).expires_at == turned.expires_at
    assert Key.objects.get(id=new.id).rotated_from_id == turned.id
    note = f"rolled back to {instant.isoformat()}"
    assert {change.note for change in Change.objects.filter(actor="ann", at__gt=instant)} >= {note}


def test_a_key_that_was_deleted_comes_back_revoked(consumer):
    key, _ = issue_key(consumer=consumer, scopes=["call:*"], by="ann")
    instant = timezone.now()
    delete_key(Key.objects.get(), by="bob")
    back(instant)
    again = Key.objects.get(id=key.id)
    assert again.revoked_at is not None
    assert (again.digest, again.revoked_reason) == (key.digest, "deleted")


def test_a_key_stays_revoked_or_expired_and_gets_its_former_rights(consumer):
    key, _ = issue_key(consumer=consumer, scopes=["publish:a"], by="ann")
    instant = timezone.now()
    update_key(key, scopes=["*"], expires_at=timezone.now() + timedelta(hours=1), by="ann")
    revoke_key(key, by="ann")
    newer, _ = issue_key(consumer=consumer, by="ann")
    back(instant)
    ended = Key.objects.get(id=key.id)
    assert ended.scopes == ["publish:a"]
    assert ended.revoked_at is not None
    assert ended.expires_at is not None
    assert Key.objects.get(id=newer.id).revoked_at is None


def test_a_newer_tier_is_deleted_after_its_consumers_have_left_it(consumer):
    instant = timezone.now()
    update_consumer(consumer, tier=create_tier(name="platinum", by="ann"), by="ann")
    back(instant)
    assert [tier.name for tier in Tier.objects.all()] == ["gold"]


def test_routes_that_changed_places_change_back():
    one = create_route(name="one", path="/1", handler=UPSTREAM, by="ann")
    two = create_route(name="two", path="/2", handler=UPSTREAM, by="ann")
    instant = timezone.now()
    update_route(one, path="/3", by="ann")
    update_route(two, path="/1", by="ann")
    update_route(one, path="/2", by="ann")
    back(instant)
    assert {route.name: route.path for route in Route.objects.all()} == {"one": "/1", "two": "/2"}


def test_a_channel_comes_back_with_its_schema():
    channel = create_channel(address="a", schema={"type": "string"}, by="ann")
    instant = timezone.now()
    delete_channel(channel, by="ann")
    create_channel(address="{all}", by="ann")
    back(instant)
    assert Channel.objects.get().schema == {"type": "string"}


def test_a_refused_rollback_changes_nothing(consumer, monkeypatch):
    route = create_route(name="one", path="/1", handler=UPSTREAM, by="ann")
    instant = timezone.now()
    update_tier(consumer.tier, description="x", by="ann")
    delete_route(route, by="ann")
    monkeypatch.setattr("routes.validation.is_reserved", lambda path: True)
    with pytest.raises(ValidationError, match="route one: Is under a reserved prefix"):
        back(instant)
    assert Tier.objects.get().description == "x"


def test_the_command_prints_what_changed(consumer):
    instant = timezone.now().isoformat()
    update_consumer(consumer, email="a@acme.example", by="ann")

    def output(*options):
        out = StringIO()
        call_command("rollback", instant, "--no-color", *options, stdout=out)
        return out.getvalue()

    assert "1 updated (dry run: nothing was changed)." in output("--dry-run")
    assert '- email: "a@acme.example"' in output()
    assert output() == "Nothing to change.\n"


@pytest.mark.django_db(transaction=True)
def test_a_dry_run_writes_nothing_and_takes_no_lock():
    tier = create_tier(name="gold", by="ann")
    key, _ = issue_key(consumer=create_consumer(name="acme", tier=tier, by="ann"), by="ann")
    instant = timezone.now()
    delete_consumer(key.consumer, by="ann")
    with CaptureQueriesContext(connection) as queries:
        (consumer, restored) = back(instant, dry_run=True).entries
    assert (consumer.name, restored.name, restored.action) == ("acme", key.id, "created")
    assert {query["sql"].split()[0] for query in queries} <= {"SELECT", "DECLARE"}  # a cursor of PostgreSQL
    assert not any("FOR UPDATE" in query["sql"] for query in queries)
    assert not Consumer.objects.exists()


@pytest.mark.parametrize("instant", ["yesterday", "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_an_instant_before_the_audit_log_is_refused(consumer, instant):
    with pytest.raises(CommandError):
        call_command("rollback", instant)


def client_of(user):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token_of(user)}")
    return client


def test_operators_see_a_diff_and_roll_back_over_rest(consumer):
    api = client_of(User.objects.create_superuser("olga", password="a-long-enough-passphrase"))
    instant = timezone.now().isoformat()
    key, _ = issue_key(consumer=consumer, by="ann")
    update_consumer(consumer, email="a@acme.example", by="ann")
    (updated, issued) = api.get("/api/v1/audit/diff", {"since": instant}).json()["changes"]
    assert (updated["action"], updated["before"]["email"], updated["after"]["email"]) == (
        "updated",
        "",
        "a@acme.example",
    )
    assert (issued["kind"], issued["name"], issued["before"]) == ("key", key.id, None)
    assert key.digest not in json.dumps(issued)
    body = {"to": instant, "dry_run": True}
    answer = api.post("/api/v1/audit/rollback", body, format="json")
    assert answer.status_code == 200, answer.json()
    foreseen = answer.json()
    assert [(one["kind"], one["name"], one["action"]) for one in foreseen["changes"]] == [
        ("consumer", "acme", "updated")
    ]
    consumer.refresh_from_db()
    assert consumer.email == "a@acme.example"
    done = api.post("/api/v1/audit/rollback/", body | {"dry_run": False}, format="json").json()
    assert (done["changes"], done["dry_run"]) == (foreseen["changes"], False)
    consumer.refresh_from_db()
    assert consumer.email == ""
    assert Change.objects.first().actor == "olga"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "rollback", {}),
        ("post", "rollback", {"to": "yesterday"}),
        ("post", "rollback", {"to": "2001-01-01T00:00:00Z"}),
        ("post", "rollback", {"to": "2026-01-01T00:00:00Z", "force": True}),
        ("get", "diff", {}),
        ("get", "diff", {"since": "yesterday"}),
        ("get", "diff", {"since": "2026-01-01T00:00:00Z", "unti": "x"}),
    ],
)
def test_an_invalid_request_is_refused(method, path, body):
    api = client_of(User.objects.create_superuser("olga", password="a-long-enough-passphrase"))
    answer = getattr(api, method)(f"/api/v1/audit/{path}", body, format="json" if method == "post" else None)
    assert answer.status_code == 400
    assert answer.json()["reason"] == "invalid-request"


def test_a_rollback_requires_every_permission(consumer):
    user = User.objects.create_user("otto", is_staff=True)
    instant = timezone.now().isoformat()
    answer = client_of(user).post("/api/v1/audit/rollback", {"to": instant, "dry_run": True}, format="json")
    assert answer.status_code == 403
    assert APIClient().post("/api/v1/audit/rollback", {"to": instant}, format="json").status_code == 401
