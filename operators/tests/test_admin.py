import json
import re

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from accounts.tests.tokens import token_of
from accounts.tokens import digest
from audit import bus
from audit.models import Change
from consumers.models import Consumer, Tier
from consumers.scopes import every_scope
from consumers.services import create_consumer
from events import letter_jobs, subscription_status
from events.models import Channel, DeadLetter
from events.services import create_channel
from events.subscriptions import create_subscription
from gateway.credentials.api_keys import parse
from keys.models import JwtIssuer, Key
from keys.services import issue_key
from operators.tests.admin_cases import confirm
from routes.models import Route
from routes.services import create_route

LISTS = [
    "consumers_consumer",
    "consumers_tier",
    "keys_key",
    "keys_jwtissuer",
    "routes_route",
    "events_channel",
    "events_deadletter",
    "events_subscription",
    "audit_change",
    "auth_user",
    "accounts_token",
]


@pytest.fixture
def page(client, operator):
    client.force_login(operator)
    return client


def url(model, what="changelist", *args):
    return reverse(f"admin:{model}_{what}", args=args)


def rows(name, *filled, columns):
    data = {f"{name}-total": str(len(filled))}
    for number, row in enumerate(filled):
        data |= {f"{name}-{number}-{column}": str(row.get(column, "")) for column in columns}
    return data


def limits(*filled):
    columns = ("metric", "amount", "per", "burst", "scope", "exceed", "mode", "close_at", "fail")
    return rows("limits", *filled, columns=columns)


def key_form(consumer, **fields):
    return {"consumer": consumer.pk, "name": "", "scopes": "call:*", "metadata": "", **limits(), **fields}


def dead_letter(**fields):
    row = {
        "made_at": "2026-01-01T00:00:00Z",
        "sequence": 1,
        "channel": "trades",
        "address": "trades",
        "reason": "invalid-payload",
        "event": {"data": {"value": "<script>alert(1)</script>"}},
        "dead_at": timezone.now(),
    }
    return DeadLetter.objects.create(**row | fields)


@pytest.mark.parametrize("model", LISTS)
def test_every_list_opens_for_operators_and_for_nobody_else(page, model):
    assert page.get(url(model)).status_code == 200
    page.logout()
    assert page.get(url(model)).status_code == 302


def test_the_menu_shows_a_count_of_dead_letters_only_if_there_are_any(page):
    badge = re.compile(r"Dead letters\s*</span>\s*(?:<span [^>]*>([^<]*)</span>)?")
    assert badge.search(page.get("/admin/").content.decode())[1] is None
    dead_letter()
    assert badge.search(page.get("/admin/").content.decode())[1] == "1"


@pytest.mark.parametrize("model", LISTS)
def test_a_list_costs_no_more_queries_for_many_rows(page, tier, model, django_assert_max_num_queries):
    for number in range(15):
        consumer = create_consumer(name=f"c{number}", tier=tier, by="test")
        issue_key(consumer=consumer, by="test")
        create_channel(address=f"a/{number}", by="test")
        create_route(name=f"r{number}", path=f"/{number}", handler={"type": "channel", "channel": "a/1"}, by="test")
        dead_letter(sequence=number)
        User.objects.create_user(f"u{number}")
    with django_assert_max_num_queries(12):
        assert page.get(url(model)).status_code == 200


def test_a_tier_with_no_scopes_filled_in_allows_all_as_over_the_api_and_in_yaml(page):
    empty = {"name": "open", "description": "", "limits": "[]", "scopes": ""}
    answer = page.post(url("consumers_tier", "add"), empty)
    assert answer.status_code == 302, answer.content
    assert Tier.objects.get(name="open").scopes == every_scope()


def test_a_tier_is_made_with_limits_from_the_table(page):
    filled = limits({"metric": "requests", "amount": 100, "per": 10}, {"metric": "open_connections", "amount": "5"}, {})
    answer = page.post(url("consumers_tier", "add"), {"name": "gold", "description": "", **filled})
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    made = Tier.objects.get().limits
    assert [(limit["metric"], limit["amount"], limit["per"]) for limit in made] == [
        ("requests", 100, 10),
        ("open_connections", 5, None),
        ("bytes_in", 104_857_600, 10),
    ]
    assert Change.objects.get(kind="tier").actor == "olga"


def test_an_error_of_the_service_is_shown_at_its_field(page):
    filled = limits({"metric": "requests", "amount": "many", "per": 10})
    answer = page.post(url("consumers_tier", "add"), {"name": "gold", "description": "", **filled})
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors == {"limits": ["limits[0].amount: Must be a number greater than 0."]}
    assert not Tier.objects.exists()


def test_saving_a_form_unchanged_records_no_change(page, tier):
    opened = page.get(url("consumers_tier", "change", tier.pk)).context["adminform"].form
    data = {
        "description": "",
        "scopes": "\n".join(tier.scopes),
        **limits(*({name: value for name, value in one.items() if value is not None} for one in tier.limits), {}),
    }
    assert page.post(url("consumers_tier", "change", tier.pk), data).status_code == 302
    assert "name" not in opened.fields
    assert not Change.objects.filter(kind="tier", actor="olga").exists()


def test_a_consumer_is_disabled_and_deleted_with_its_keys(page, consumer):
    issue_key(consumer=consumer, by="test")
    data = {"display_name": "Acme", "email": "", "tier": consumer.tier_id, "metadata": '{"plan": "pro"}', **limits()}
    assert page.post(url("consumers_consumer", "change", consumer.pk), data).status_code == 302
    consumer.refresh_from_db()
    assert (consumer.display_name, consumer.is_active, consumer.metadata) == ("Acme", False, {"plan": "pro"})
    requested = page.get(url("consumers_consumer", "delete", consumer.pk))
    assert b"permission" not in requested.content
    assert page.post(url("consumers_consumer", "delete", consumer.pk), {"post": "yes"}).status_code == 302
    assert not Consumer.objects.exists()
    assert not Key.objects.exists()
    assert Change.objects.filter(actor="olga", action="deleted").count() == 2


def test_a_new_key_is_shown_exactly_once(page, consumer):
    answer = page.post(url("keys_key", "add"), key_form(consumer, name="laptop"))
    assert answer.status_code == 200
    key = Key.objects.get()
    (text,) = set(re.findall(r"apim_[A-Za-z0-9_]+", answer.content.decode()))
    assert parse(text) == key.id
    assert "no-store" in answer["cache-control"]
    assert "operators/copy.js" in answer.content.decode()
    for address in (url("keys_key", "change", key.pk), url("keys_key"), url("audit_change"), url("consumers_consumer")):
        content = page.get(address).content.decode()
        assert text not in content
        assert key.digest not in content
    (change,) = Change.objects.filter(kind="key")
    content = page.get(url("audit_change", "change", change.pk)).content.decode()
    assert key.digest not in content
    assert not any(text in json.dumps(dict(session)) for session in [page.session])


def test_a_key_the_service_refuses_is_not_issued(page, consumer):
    answer = page.post(url("keys_key", "add"), key_form(consumer, scopes="publish everything"))
    assert "scopes" in answer.context["adminform"].form.errors
    assert not Key.objects.exists()


@pytest.mark.parametrize(("overlap_s", "is_revoked"), [(0, True), (3600, False), (86400, False), (604800, False)])
def test_a_key_is_rotated_with_an_overlap(page, consumer, overlap_s, is_revoked):
    old, _ = issue_key(consumer=consumer, scopes=["call:*"], by="test")
    address = f"{url('keys_key', 'change', old.pk).removesuffix('change/')}rotate/"
    assert page.get(address).status_code == 200
    assert Key.objects.count() == 1
    answer = page.post(address, {"overlap_s": str(overlap_s)})
    new = Key.objects.get(rotated_from=old)
    assert new.id in answer.content.decode()
    old.refresh_from_db()
    assert (old.revoked_at is not None) == is_revoked
    if not is_revoked:
        assert overlap_s - 60 < (old.expires_at - timezone.now()).total_seconds() <= overlap_s


def test_an_overlap_that_is_not_offered_is_refused(page, consumer):
    old, _ = issue_key(consumer=consumer, by="test")
    address = f"{url('keys_key', 'change', old.pk).removesuffix('change/')}rotate/"
    assert page.post(address, {"overlap_s": "99999999"}).status_code == 200
    assert Key.objects.count() == 1


def test_a_key_is_revoked_with_a_reason_and_is_then_read_only(page, consumer):
    key, _ = issue_key(consumer=consumer, by="test")
    address = f"{url('keys_key', 'change', key.pk).removesuffix('change/')}revoke/"
    assert page.get(address).status_code == 200
    page.post(address, {"reason": "left the company"})
    key.refresh_from_db()
    assert key.revoked_reason == "left the company"
    assert page.post(url("keys_key", "change", key.pk), key_form(consumer)).status_code == 403
    assert page.post(url("keys_key", "delete", key.pk), {"post": "yes"}).status_code == 403


def test_a_route_is_made_of_its_handler_and_policies(page):
    policies = rows(
        "policies",
        {"type": "api-key", "mode": "enforce"},
        {"type": "request-size-limit", "options": '{"max_bytes": 10}', "mode": "shadow"},
        columns=("type", "options", "mode"),
    )
    data = {
        "name": "items", "path": "/items/{rest...}", "protocol": "http", "methods": "GET\nREPORT",
        "handler_type": "upstream", "handler_url": "http://service.example/{rest}", **policies,
        "rewrite_location": "on", "upstream_authorization": "drop",
    }  # fmt: skip
    answer = page.post(url("routes_route", "add"), data)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    route = Route.objects.get()
    assert route.handler == {"type": "upstream", "url": "http://service.example/{rest}"}
    assert route.methods == ["GET", "REPORT"]
    assert [(policy["type"], policy["mode"]) for policy in route.policies] == [
        ("api-key", "enforce"),
        ("request-size-limit", "shadow"),
    ]
    wrong = page.post(url("routes_route", "change", route.pk), data | {"handler_url": "file:///etc/passwd"})
    assert "handler_url" in wrong.context["adminform"].form.errors


def test_a_channel_is_declared_and_changed(page):
    data = {
        "address": "trades",
        "title": "Trades",
        "content_type": "json",
        "on_invalid": "reject",
        "schema": '{"type": "object"}',
        "max_age_s": "60",
    }
    assert page.post(url("events_channel", "add"), data).status_code == 302
    channel = Channel.objects.get()
    assert (channel.schema, channel.retention) == ({"type": "object"}, {"max_age_s": 60})
    page.post(
        url("events_channel", "change", channel.pk), data | {"schema": "", "protocols": ["mqtt"], "max_age_s": ""}
    )
    channel.refresh_from_db()
    assert (channel.schema, channel.retention, channel.protocols) == (None, {}, ["mqtt"])
    for schema in ('{"type": "object", "title": "t"}', '{"title": "t", "type": "object"}'):
        page.post(url("events_channel", "change", channel.pk), data | {"schema": schema})
        channel.refresh_from_db()
        assert json.dumps(channel.schema) == schema
    wrong = page.post(url("events_channel", "change", channel.pk), data | {"schema": '{"a": NaN}'})
    assert "schema" in wrong.context["adminform"].form.errors


def test_an_issuer_is_trusted(page):
    data = {
        "name": "idp", "issuer": "https://idp.example", "jwks_url": "https://idp.example/jwks", "audience": "api",
        "algorithms": ["RS256", "ES256"], "consumer_claim": "sub",
    }  # fmt: skip
    assert page.post(url("keys_jwtissuer", "add"), data).status_code == 302
    assert JwtIssuer.objects.get().algorithms == ["RS256", "ES256"]


def test_dead_letters_are_shown_as_text_and_put_back(page, monkeypatch):
    create_channel(address="trades", by="test")
    first, second = dead_letter(), dead_letter(sequence=2)
    stored = []
    monkeypatch.setattr(bus, "store", lambda subject, data, headers: stored.append(subject))
    content = page.get(url("events_deadletter", "change", first.pk)).content.decode()
    assert "<script>alert(1)" not in content
    assert escape("<script>alert(1)</script>") in content
    address = f"{url('events_deadletter', 'change', first.pk).removesuffix('change/')}redrive/"
    assert page.get(address).status_code == 200
    assert stored == []
    page.post(address)
    assert [subject.rpartition(".")[2] for subject in stored] == ["trades"]
    shown = page.post(url("events_deadletter"), {"action": "discard_selected", "_selected_action": [second.pk]})
    assert "Discard 1 dead letter?" in shown.content.decode()
    assert "trades: 1" in shown.content.decode()
    assert DeadLetter.objects.exists()
    letter_jobs.run(confirm(page, "events_deadletter", shown).url.rpartition("/")[2])
    assert not DeadLetter.objects.exists()
    assert Change.objects.filter(kind="dead-letters").count() == 1


def test_an_unavailable_engine_is_reported_and_nothing_is_lost(page, monkeypatch):
    def away(*args, **kwargs):
        raise bus.Unavailable("no answer")

    monkeypatch.setattr(bus, "store", away)
    create_channel(address="trades", by="test")
    letter = dead_letter()
    address = f"{url('events_deadletter', 'change', letter.pk).removesuffix('change/')}redrive/"
    answer = page.post(address, follow=True)
    assert answer.status_code == 200
    assert "does not answer" in answer.content.decode()
    assert DeadLetter.objects.exists()


def test_the_audit_log_cannot_be_altered(page, tier):
    change = Change.objects.get(kind="tier")
    address = url("audit_change", "change", change.pk)
    assert page.get(address).status_code == 200
    assert page.post(address, {"actor": "nobody"}).status_code == 403
    assert page.post(url("audit_change", "delete", change.pk), {"post": "yes"}).status_code == 403
    assert page.get(url("audit_change", "add")).status_code == 403


def test_staff_see_and_do_what_their_permissions_say(client, consumer):
    user = User.objects.create_user("sam", password="x", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=["view_key", "view_consumer"]))
    client.force_login(user)
    key, _ = issue_key(consumer=consumer, by="test")
    assert client.get(url("keys_key")).status_code == 200
    assert client.get(url("keys_key", "add")).status_code == 403
    for verb in ("rotate", "revoke"):
        address = f"{url('keys_key', 'change', key.pk).removesuffix('change/')}{verb}/"
        assert client.post(address, {"overlap_s": "0"}).status_code == 403
    front = client.get("/admin/").content.decode()
    assert "Valid keys" in front
    assert "Latest changes" in front
    assert "created" not in front
    assert client.get(url("audit_change")).status_code == 403


def test_the_policy_is_relaxed_under_the_admin_alone(page):
    assert "unsafe-eval" in page.get("/admin/")["content-security-policy"]
    for address in ("/api/v1/tiers/", "/api/v1/schema/", "/healthz", "/administer"):
        answer = page.get(address)
        assert "unsafe" not in answer.get("content-security-policy", "")


def test_no_page_shows_a_token(page):
    token = token_of(User.objects.get(username="olga"))
    content = page.get("/admin/").content.decode() + page.get(url("accounts_token")).content.decode()
    assert token not in content
    assert digest(token) not in content


def test_a_subscription_is_shown_with_its_tries_paused_resumed_and_deleted(page, consumer, monkeypatch):
    create_channel(address="trades", by="test")
    row, _ = create_subscription(consumer=consumer, type="pull", channel="trades", position=0, by="test")
    tried = {
        "at": "2026-11-24T00:00:00Z", "event": "42", "attempt": 2, "outcome": "failed", "duration_s": 0.1,
        "answer": {"status": 500, "body": "<script>1</script>"},
    }  # fmt: skip
    fault = {"at": "2026-11-24T00:00:00Z", "detail": "It answered 500."}
    monkeypatch.setattr(subscription_status, "attempts", lambda id_: [tried])
    monkeypatch.setattr(
        subscription_status, "healths", lambda: {row.id: {"lag": {"events": 3, "seconds": 9}, "last_error": fault}}
    )
    shown = page.get(url("events_subscription", "change", quote(row.pk))).content.decode()
    assert "&lt;script&gt;1" in shown
    assert "<script>1</script>" not in shown
    for text in ("attempt 2: failed", "3 events, 9 s", "It answered 500."):
        assert text in shown
    for action, state in (("pause_selected", "paused"), ("resume_selected", "active")):
        before = row.state
        shown = page.post(url("events_subscription"), {"action": action, "_selected_action": [row.pk]})
        row.refresh_from_db()
        assert row.state == before
        assert "acme, trades" in shown.content.decode()
        confirm(page, "events_subscription", shown)
        row.refresh_from_db()
        assert row.state == state
    page.post(url("events_subscription", "delete", quote(row.pk)), {"post": "yes"})
    assert Change.objects.filter(kind="subscription").order_by("-id").first().action == "deleted"


def test_a_subscription_is_shown_while_the_event_log_is_unavailable(page, consumer, settings):
    settings.NATS_URL = ""
    create_channel(address="trades", by="test")
    row, _ = create_subscription(consumer=consumer, type="pull", channel="trades", position=0, by="test")
    shown = page.get(url("events_subscription", "change", quote(row.pk))).content.decode()
    assert "NATS is unavailable." in shown
