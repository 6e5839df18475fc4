import pytest
from django.utils import timezone

from events.models import DeadLetter
from operators.tests.api_cases import problem
from operators.tests.test_collections import COLLECTIONS


@pytest.fixture
def letters(db):
    """Return dead letters of two channels."""
    for number, channel in enumerate(("trades", "other")):
        DeadLetter.objects.create(
            made_at="2026-01-01T00:00:00Z",
            sequence=number,
            channel=channel,
            address=channel,
            reason="invalid-payload",
            event={"data": 1},
            dead_at=timezone.now(),
        )


@pytest.mark.parametrize("action", ["discard", "redrive", "discard/", "redrive/"])
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "all"),
        ("?channel=", "channel"),
        ("?channel", "channel"),
        ("?channel=%20%09", "channel"),
        ("?channel=trades&channel=other", "channel"),
        ("?channel=trades&reason=", "reason"),
        ("?subscription=", "subscription"),
        ("?chanel=trades", "chanel"),
        ("?all=", "all"),
        ("?all=false", "all"),
        ("?all=1", "all"),
        ("?all=true&all=true", "all"),
        ("?all=true&channel=trades", "all"),
        ("?all=true&channel=", "channel"),
        ("?limit=1", "limit"),
        ("?cursor=abc", "cursor"),
    ],
)
def test_a_bulk_action_without_a_valid_filter_does_nothing(api, letters, action, query, name):
    refused = problem(api.post(f"/api/v1/dead-letters/{action}{query}"), 400, "invalid-request")
    assert name in refused["errors"]
    assert DeadLetter.objects.count() == 2


def test_a_bulk_action_selects_by_filters_or_every_row(api, letters):
    assert api.post("/api/v1/dead-letters/discard?channel=trades").json()["total"] == 1
    assert api.post("/api/v1/dead-letters/discard?all=true").json()["total"] == 2


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("consumers/?is_active=banana", "is_active"),
        ("consumers/?is_active=", "is_active"),
        ("consumers/?is_active=1", "is_active"),
        ("consumers/?tier=", "tier"),
        ("consumers/?is_active=true&is_active=false", "is_active"),
        ("consumers/?all=true", "all"),
        ("keys/?state=banana", "state"),
        ("keys/?consumer=", "consumer"),
        ("connections/?state=&consumer=acme", "state"),
        ("usage/?group=", "group"),
        ("usage/?from=yesterday", "from"),
        ("usage/?from=9999-12-31T23:59:59-23:59", "from"),
        ("usage/?to=0001-01-01T00:00:00%2B23:59", "to"),
        ("audit/diff?since=9999-12-31T23:59:59-23:59", "since"),
        ("audit/diff?since=2026-01-01T00:00:00Z&until=0001-01-01T00:00:00%2B23:59", "until"),
        ("audit/?as_of=", "as_of"),
        ("audit/?as_of=9999-12-31T23:59:59-14:00", "as_of"),
        ("audit/?as_of=0001-01-01T00:00:00%2B14:00", "as_of"),
        ("audit/?kind=a&kind=b", "kind"),
        ("audit/diff?since=", "since"),
        ("audit/diff?since=2026-01-01T00:00:00Z&since=2027-01-01T00:00:00Z", "since"),
    ],
)
def test_empty_repeated_and_malformed_filters_are_refused_by_name(api, path, name):
    assert name in problem(api.get(f"/api/v1/{path}"), 400, "invalid-request")["errors"]


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("query", ["limit=", "cursor=", "limit=5&limit=6"])
def test_every_list_refuses_empty_and_repeated_parameters(api, collection, query):
    assert (
        query.partition("=")[0] in problem(api.get(f"/api/v1/{collection}/?{query}"), 400, "invalid-request")["errors"]
    )


def test_flags_filter(api, consumer):
    assert len(api.get("/api/v1/consumers/?is_active=true").json()["results"]) == 1
    assert api.get("/api/v1/consumers/?is_active=false").json()["results"] == []


def test_a_deletion_with_an_empty_parameter_deletes_nothing(api, consumer):
    problem(api.delete("/api/v1/consumers/acme?tier="), 400, "invalid-request")
    assert api.get("/api/v1/consumers/acme").status_code == 200


@pytest.mark.parametrize("value", [5, 0, 1.5, True, None, [], {}, "", ["a"]])
def test_a_leaked_key_is_a_text(api, value):
    assert "key" in problem(api.post("/api/v1/keys/leaked", {"key": value}), 400, "invalid-request")["errors"]


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [("tiers/", {"name": 5}, "name"), ("consumers/", {"name": 5, "tier": "gold"}, "name"),
     ("channels/", {"address": 5}, "address")],
)  # fmt: skip
def test_a_number_is_no_text(api, tier, path, body, name):
    assert name in problem(api.post(f"/api/v1/{path}", body), 400, "invalid-request")["errors"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "consumers/acme?fields=name"),
        ("delete", "consumers/acme?dry_run=true"),
        ("patch", "consumers/acme?force=true"),
        ("post", "consumers/?dry_run=true"),
        ("post", "keys/leaked?dry_run=true"),
        ("delete", "tiers/gold?cascade=false"),
        ("delete", "connections/abc?state=open"),
        ("delete", "dead-letter-jobs/dlj_x?dry_run=true"),
        ("post", "audit/rollback/?dry_run=true"),
        ("get", "audit/diff?since=2026-01-01T00:00:00Z&untill=2026-01-01T00:00:00Z"),
    ],
)
def test_a_parameter_that_an_action_does_not_have_is_refused_by_name(api, consumer, method, path):
    refused = problem(getattr(api, method)(f"/api/v1/{path}"), 400, "invalid-request")
    assert list(refused["errors"]) == [path.rpartition("=")[0].rpartition("?")[2].rpartition("&")[2]]
    assert api.get("/api/v1/consumers/acme").status_code == 200


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_no_collection_is_deleted_as_a_whole(api, collection):
    assert api.delete(f"/api/v1/{collection}/").status_code == 405
    assert api.delete(f"/api/v1/{collection}").status_code == 405
