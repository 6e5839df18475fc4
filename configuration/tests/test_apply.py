from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit.models import Change
from audit.snapshot_documents import all_documents
from configuration.apply import apply_file, apply_text
from configuration.export import export_text
from configuration.rehearsal import rehearsal
from configuration.yaml_documents import DocumentError
from consumers.models import Consumer, Tier
from events.models import Channel
from keys.models import Key
from keys.services import issue_key
from routes.models import Route

pytestmark = pytest.mark.django_db

DEMO = Path(__file__).parents[2] / "demo" / "apimgmt.yaml"
WHOLE = """
tiers:
  - name: gold
    description: "on"
    limits:
      - {metric: requests, amount: 10, per: 1}
      - {metric: messages_in, amount: 5.5, per: 30, burst: 7, scope: key, exceed: delay, mode: shadow, fail: closed}
      - {metric: messages_in, amount: 100, per: month}
      - {metric: open_connections, amount: 3, close_at: 5}
consumers:
  - {name: acme, tier: gold, metadata: {plan: "12", seats: 3}, is_active: false}
channels:
  - address: orders/{id}
    schema: {type: object, properties: {at: {type: string, format: date-time}}}
    retention: {max_events: 5}
    protocols: [sse, mqtt]
routes:
  - name: pets
    path: /pets/{id}
    methods: [GET, POST]
    handler: {type: upstream, url: "http://127.0.0.1:9/{id}"}
    policies:
      - {type: request-size-limit, options: {max_bytes: 10}, mode: shadow}
issuers:
  - {name: idp, issuer: "https://idp.example", jwks_url: "https://idp.example/jwks", audience: api}
"""


def apply(text, **how):
    return apply_text(text, "x.yaml", by="ann", **how)


def refusal_of(text, **how):
    with pytest.raises(DocumentError) as refused:
        apply(text, **how)
    return str(refused.value)


def summary(diff):
    return [(entry.action, entry.kind, entry.name) for entry in diff.entries]


def test_the_demo_applies_and_what_is_exported_changes_nothing():
    assert len(apply_file(DEMO, by="ann").entries) == 16
    changes = Change.objects.count()
    assert not apply_file(DEMO, by="ann", prune=True)
    assert not apply(export_text(), prune=True)
    assert Change.objects.count() == changes


def test_the_round_trip_is_exact_for_every_field():
    apply(WHOLE)
    exported = export_text()
    rows = [row.representation() for model in (Tier, Consumer, Channel, Route) for row in model.objects.all()]
    apply("tiers: []\nconsumers: []\nchannels: []\nroutes: []\nissuers: []", prune=True)
    assert not Tier.objects.exists()
    assert export_text() == "{}\n"
    apply(exported)
    assert [row.representation() for model in (Tier, Consumer, Channel, Route) for row in model.objects.all()] == rows
    assert export_text() == exported


def test_an_export_omits_defaults_and_contains_no_secret():
    apply(WHOLE)
    exported = export_text()
    assert "burst: 7" in exported
    assert "burst: 10" not in exported
    assert "mode: enforce" not in exported
    assert "display_name" not in exported
    assert "digest" not in exported


def test_changes_are_recorded_with_their_actor():
    apply(WHOLE)
    assert {change.actor for change in Change.objects.all()} == {"ann"}
    assert set(Change.objects.values_list("kind", flat=True)) == {"tier", "consumer", "channel", "route", "issuer"}


def test_an_omitted_field_is_set_to_its_default():
    apply(WHOLE)
    diff = apply("consumers:\n  - {name: acme, tier: gold}")
    assert summary(diff) == [("updated", "consumer", "acme")]
    assert Consumer.objects.get().is_active is True
    assert Consumer.objects.get().metadata == {}


def test_a_dry_run_says_what_would_change_and_changes_nothing():
    diff = apply(WHOLE, dry_run=True)
    assert summary(diff)[0] == ("created", "tier", "gold")
    assert len(diff.entries) == 5
    assert not Tier.objects.exists()
    assert not Change.objects.exists()


def test_without_prune_what_is_not_named_stays():
    apply(WHOLE)
    assert not apply("tiers: []\nroutes: []")
    assert Route.objects.count() == 1


def test_prune_deletes_what_a_section_does_not_name_and_spares_sections_left_out():
    apply(WHOLE)
    diff = apply("routes: []", prune=True)
    assert summary(diff) == [("deleted", "route", "pets")]
    assert Channel.objects.count() == 1


def test_a_pruned_route_frees_its_path_for_another_in_the_same_document():
    apply(WHOLE)
    renamed = WHOLE.replace("name: pets", "name: animals").replace("orders/{id}", "orders/{number}")
    diff = apply(renamed, prune=True)
    assert ("deleted", "route", "pets") in summary(diff)
    assert ("created", "route", "animals") in summary(diff)
    assert Channel.objects.get().address == "orders/{number}"


def test_a_pruned_tier_may_lose_its_consumers_in_the_same_document():
    apply(WHOLE)
    diff = apply("tiers: [{name: free}]\nconsumers: [{name: acme, tier: free}]", prune=True)
    assert summary(diff) == [("created", "tier", "free"), ("updated", "consumer", "acme"), ("deleted", "tier", "gold")]


def test_an_error_undoes_everything_before_it():
    assert "There is no tier silver" in refusal_of(WHOLE.replace("tier: gold,", "tier: silver,"))
    assert not Tier.objects.exists()
    assert not Change.objects.exists()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("- x", "1:1", "must be a mapping of the sections schemas, tiers"),
        ("", "1:1", "must be a mapping of the sections schemas, tiers"),
        ("plans: []", "1:1", "unknown section plans"),
        ("tiers: 5", "1:1", "tiers must be a list"),
        ("tiers:\n  - gold", "2:5", "a tier must be a mapping"),
        ("tiers:\n  - {name: a, rate: 5}", "2:15", "unknown field rate"),
        ("tiers:\n  - {description: x}", "2:5", "a tier needs name"),
        ("tiers:\n  - {name: a, limits: }", "2:15", "limits is empty"),
        ("tiers:\n  - {name: }", "2:6", "name is empty"),
        ("tiers:\n  - {name: 5}", "2:6", "name must be a string"),
        ("tiers:\n  - {name: a}\n  - {name: a}", "3:5", "tier a is defined twice"),
        (
            "tiers: [{name: a}]\nconsumers: [{name: b, tier: a, is_active: 1}]",
            "2:32",
            "is_active must be true or false",
        ),
        ("tiers:\n  - name: a\n    limits:\n      - {metric: requests, amount: 0, per: 1}", "4:28", "greater than 0"),
        ("tiers:\n  - name: a\n    limits:\n      - {metric: bytes, amount: 1, per: 1}", "4:10", "Must be one of"),
        ("routes:\n  - {name: a, path: /a, handler: {type: mail}}", "2:35", "handler.type"),
        ("routes:\n  - {name: a, path: /a, handler: {type: upstream, url: x}}", "2:51", "handler.url"),
        ("routes:\n  - {name: a, path: a, handler: {type: job, job_type: x}}", "2:15", "path"),
        ("channels:\n  - {address: a, retention: {days: 5}}", "2:30", "retention.days"),
        ("channels:\n  - {address: 'a/{b}'}\n  - {address: 'a/{x}'}", "3:6", "a/{b}"),
    ],
)
def test_an_error_has_its_place(text, place, message):
    fault = refusal_of(text)
    assert fault.startswith(f"x.yaml:{place}: ")
    assert message in fault


def test_a_tier_in_use_cannot_be_pruned_and_says_so():
    apply(WHOLE)
    assert "still used by consumer acme" in refusal_of("tiers: []", prune=True)
    assert Tier.objects.count() == 1


def test_the_copy_of_a_dry_run_has_every_value_of_its_rows():
    apply(WHOLE)
    key, _ = issue_key(consumer=Consumer.objects.get(), by="ann")
    Key.objects.filter(id=key.id).update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    before = [Key.objects.get().representation(), *all_documents().values()]
    with rehearsal():
        assert [Key.objects.get().representation(), *all_documents().values()] == before
