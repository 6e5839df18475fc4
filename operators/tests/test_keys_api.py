from django.utils import timezone

from gateway.credentials.api_keys import parse
from keys.models import Key
from keys.services import issue_key
from operators.tests.api_cases import problem


def test_a_key_is_shown_once_and_never_again(api, consumer):
    made = api.post("/api/v1/consumers/acme/keys", {"name": "laptop", "scopes": ["call:*"]})
    assert made.status_code == 201
    assert made["cache-control"] == "no-store"
    body = made.json()
    text = body["key"]
    assert parse(text) == body["id"]
    assert (body["consumer"], body["scopes"], body["revoked_at"]) == ("acme", ["call:*"], None)
    elsewhere = [f"keys/{body['id']}", "keys", "consumers/acme/keys", "audit", "consumers/acme"]
    for address in elsewhere:
        content = api.get(f"/api/v1/{address}/").content.decode()
        assert text not in content
        assert Key.objects.get().digest not in content
        assert "digest" not in content


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


def test_a_deleted_key_is_not_listed_but_in_the_audit_log(api, consumer):
    key, _ = issue_key(consumer=consumer, by="test")
    assert api.delete(f"/api/v1/keys/{key.id}").status_code == 204
    problem(api.get(f"/api/v1/keys/{key.id}"), 404, "not-found")
    problem(api.delete(f"/api/v1/keys/{key.id}/"), 404, "not-found")
    assert api.get("/api/v1/keys/?consumer=acme").json()["results"] == []
    changes = api.get(f"/api/v1/audit/?kind=key&name={key.id}").json()["results"]
    assert [change["action"] for change in changes] == ["deleted", "updated", "created"]


def test_keys_are_changed_but_not_issued_by_their_id(api, consumer):
    key, _ = issue_key(consumer=consumer, by="test")
    changed = api.patch(f"/api/v1/keys/{key.id}", {"scopes": ["publish:*"], "expires_at": "2999-01-01T00:00:00Z"})
    assert changed.json()["scopes"] == ["publish:*"]
    assert changed.json()["expires_at"] == "2999-01-01T00:00:00Z"
    problem(api.patch(f"/api/v1/keys/{key.id}", {"revoked_at": None}), 400, "invalid-request")
    problem(api.post("/api/v1/keys/", {}), 405, "method-not-allowed")
    problem(api.post("/api/v1/consumers/nobody/keys", {}), 404, "not-found")
