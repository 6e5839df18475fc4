import json
from datetime import timedelta
from io import StringIO

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import tokens
from accounts.models import Token
from accounts.tests.tokens import token_of
from accounts.tokens import digest, issue_token, revoke_token
from audit.models import Change


def api(token):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return client


def status(token):
    return api(token).get("/api/v1/tiers").status_code


def test_only_a_digest_of_a_token_is_stored(operator):
    row, text = issue_token(operator, name="ci", by="olga")
    stored = str(Token.objects.values().get(pk=row.pk))
    assert text not in stored
    assert text.removeprefix(row.prefix) not in stored
    assert (status(text), status(row.digest), status(row.prefix)) == (200, 401, 401)


def test_a_token_expires_after_the_setting_or_as_asked_and_no_later(operator, settings):
    settings.TOKEN_DAYS = 10
    now = timezone.now()
    by_default, requested = token_of(operator), token_of(operator, expires_at=now + timedelta(days=1))
    with pytest.raises(ValidationError):
        issue_token(operator, name="a", expires_at=now + timedelta(days=11), by="olga")
    with pytest.raises(ValidationError):
        issue_token(operator, name="a", expires_at=now, by="olga")
    for days, statuses in ((0.9, (200, 200)), (1.1, (200, 401)), (10.1, (401, 401))):
        with time_machine.travel(now + timedelta(days=days), tick=False):
            assert (status(by_default), status(requested)) == statuses


def test_a_revoked_token_and_one_of_a_disabled_account_are_refused(operator):
    text = token_of(operator)
    revoke_token(Token.objects.get(), by="olga")
    assert status(text) == 401
    text = token_of(operator)
    User.objects.update(is_active=False)
    assert status(text) == 401


def test_the_last_use_of_a_token_is_stored_once_a_minute(operator, django_assert_num_queries):
    text = token_of(operator)
    with time_machine.travel(timezone.now(), tick=False) as clock:
        status(text)
        used_at = Token.objects.get().last_used_at
        clock.shift(30)
        status(text)
        assert Token.objects.get().last_used_at == used_at == timezone.now() - timedelta(seconds=30)
        clock.shift(31)
        status(text)
        assert Token.objects.get().last_used_at > used_at


def test_an_operator_sees_and_revokes_its_own_tokens_alone(operator, make_operator):
    mine, theirs = (token_of(make_operator("sam")), token_of(operator))
    caller = api(mine)
    listed = caller.get("/api/v1/tokens/").json()["results"]
    assert [(row["account"], row["name"]) for row in listed] == [("sam", "tests")]
    assert set(listed[0]) == {
        "id", "prefix", "name", "account", "created_at", "last_used_at", "expires_at", "revoked_at"
    }  # fmt: skip
    other = Token.objects.get(digest=digest(theirs))
    assert caller.get(f"/api/v1/tokens/{other.pk}").status_code == 404
    assert caller.delete(f"/api/v1/tokens/{other.pk}").status_code == 404
    assert caller.get("/api/v1/tokens/?account=olga").json()["results"] == []
    assert caller.delete(f"/api/v1/tokens/{listed[0]['id']}").status_code == 204
    assert (status(mine), status(theirs)) == (401, 200)


def test_the_right_to_view_tokens_shows_all_and_that_to_delete_them_revokes_all(operator, make_operator):
    theirs = token_of(operator)
    other = Token.objects.get()
    viewer, keeper = (
        api(token_of(make_operator("vic", "view_token"))),
        api(token_of(make_operator("kit", "view_token", "delete_token"))),
    )
    assert {row["account"] for row in viewer.get("/api/v1/tokens/").json()["results"]} == {"olga", "vic", "kit"}
    assert viewer.delete(f"/api/v1/tokens/{other.pk}").status_code == 403
    assert status(theirs) == 200
    assert keeper.delete(f"/api/v1/tokens/{other.pk}").status_code == 204
    assert status(theirs) == 401


def test_a_token_is_issued_over_the_api_for_its_operator_and_outlives_no_token_that_issued_it(make_operator):
    expires_at = timezone.now() + timedelta(days=3)
    caller = api(token_of(make_operator("sam"), expires_at=expires_at))
    made = caller.post("/api/v1/tokens/", {"name": "ci"})
    assert made.status_code == 201
    assert made["location"].endswith(f"/api/v1/tokens/{made.json()['id']}")
    assert status(made.json()["token"]) == 403  # it lacks the right to view tiers, but it is sam's
    row = Token.objects.get(name="ci")
    assert (row.account.username, row.expires_at) == ("sam", expires_at)
    late = (expires_at + timedelta(days=1)).isoformat()
    refused = caller.post("/api/v1/tokens/", {"name": "ci", "expires_at": late})
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["expires_at"])
    for body in ({}, {"name": ""}, {"name": "a", "account": "olga"}, {"name": "a", "expires_at": None}):
        assert caller.post("/api/v1/tokens/", body).status_code == 400, body


def test_an_account_that_is_no_operators_has_no_tokens(db):
    caller = api(token_of(User.objects.create_user("eve")))
    assert caller.get("/api/v1/tokens/").status_code == 403
    assert caller.post("/api/v1/tokens/", {"name": "a"}).status_code == 403


def test_the_valid_tokens_of_an_operator_are_bounded(operator, monkeypatch):
    monkeypatch.setattr(tokens, "ACTIVE_MAX", 2)
    token_of(operator)
    token_of(operator)
    with pytest.raises(ValidationError):
        token_of(operator)
    revoke_token(Token.objects.first(), by="olga")
    token_of(operator)


def test_changes_of_tokens_are_recorded_without_their_secret(operator, client):
    client.force_login(operator)
    client.post(reverse("admin:accounts_token_add"), {"name": "ci"}, REMOTE_ADDR="203.0.113.9")
    row = Token.objects.get()
    client.post(reverse("admin:accounts_token_revoke", args=[row.pk]), REMOTE_ADDR="203.0.113.9")
    issued, revoked = Change.objects.filter(kind="token").order_by("id")
    assert (issued.actor, issued.action, issued.name, issued.note) == (
        "olga", "created", row.prefix, "from 203.0.113.9"
    )  # fmt: skip
    assert (revoked.action, revoked.before["revoked_at"]) == ("updated", None)
    assert row.digest not in str([issued.after, revoked.before, revoked.after])


def test_the_admin_shows_a_new_token_once_and_lists_ones_own(operator, make_operator, client):
    theirs = issue_token(operator, name="of olga", by="olga")[0]
    client.force_login(make_operator("sam"))
    page = client.post(reverse("admin:accounts_token_add"), {"name": "of sam"})
    assert "no-store" in page["cache-control"]
    row = Token.objects.get(name="of sam")
    text = page.context["text"]
    assert row.digest == digest(text)
    listed = client.get(reverse("admin:accounts_token_changelist")).content.decode()
    assert "of sam" in listed
    assert text not in listed
    assert "of olga" not in listed
    assert "olga" not in listed.split("<main")[-1]
    assert client.get(reverse("admin:accounts_token_change", args=[row.pk])).status_code == 200
    for page_of_another in ("change", "revoke"):
        answer = client.post(reverse(f"admin:accounts_token_{page_of_another}", args=[theirs.pk]))
        assert answer.status_code in (302, 403, 404)
    theirs.refresh_from_db()
    assert theirs.revoked_at is None
    assert client.post(reverse("admin:accounts_token_revoke", args=[row.pk])).status_code == 302
    assert status(text) == 401


def test_a_token_is_issued_on_the_command_line_to_operators_alone(operator):
    def issued(*options):
        out = StringIO()
        call_command("issue_token", "olga", "--json", *options, stdout=out)
        return json.loads(out.getvalue())["token"]

    first = issued()
    assert status(first) == 200
    other, second = issued("--name", "ci", "--days", "1"), issued()
    assert (status(first), status(second), status(other)) == (401, 200, 200)
    assert Token.objects.get(name="ci").expires_at < timezone.now() + timedelta(days=1)
    User.objects.create_user("eve")
    for name in ("eve", "nobody"):
        with pytest.raises(CommandError):
            call_command("issue_token", name)
    for days in ("0", "91"):
        with pytest.raises(CommandError):
            issued("--days", days)
