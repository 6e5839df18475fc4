import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit import relay
from audit.models import Change
from audit.services import configuration_as_of, diff_between, without_hidden
from audit.snapshot_documents import all_documents, snapshot_document
from audit.tests.histories import BEGAN_AT, HISTORIES
from consumers.services import create_consumer, create_tier, delete_tier, update_consumer, update_tier
from gateway.snapshot.bucket import kv_key
from keys.services import issue_key

pytestmark = pytest.mark.django_db


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(HISTORIES)
def test_the_configuration_of_any_instant_follows_from_the_log_alone(history):
    with history.lived() as instants:
        pictures = [(at, all_documents()) for at in instants]
        assert configuration_as_of(BEGAN_AT - timedelta(seconds=1)) == {}
        for at, picture in pictures:
            documents = configuration_as_of(at + timedelta(seconds=30))
            assert {which: snapshot_document(which[0], recorded) for which, recorded in documents.items()} == picture


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(HISTORIES)
def test_the_snapshot_that_is_rebuilt_is_the_one_that_was_relayed_byte_for_byte(history):
    with history.lived() as instants:
        for _ in instants:
            pass
        relayed = {}
        for change in Change.objects.unpublished():
            relayed[kv_key(change.kind, change.name)] = change.after and relay.encode(
                snapshot_document(change.kind, change.after)
            )
        rebuilt = {kv_key(*which): relay.encode(document) for which, document in all_documents().items()}
        assert {key: data for key, data in relayed.items() if data is not None} == rebuilt


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(HISTORIES, st.data())
def test_a_diff_applied_to_one_instant_gives_the_other(history, data):
    with history.lived() as lived:
        instants = list(lived)
        since, until = (data.draw(st.sampled_from(instants)) for _ in range(2))
        documents = {which: without_hidden(document) for which, document in configuration_as_of(since).items()}
        for one in diff_between(since, until).entries:
            assert documents.get((one.kind, one.name)) == one.before
            documents[one.kind, one.name] = one.after
        assert {which: document for which, document in documents.items() if document is not None} == {
            which: without_hidden(document) for which, document in configuration_as_of(until).items()
        }


def test_the_command_prints_it_without_digests():
    consumer = create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")
    key, text = issue_key(consumer=consumer, by="ann")
    out = StringIO()
    call_command("changes", "--as-of", "2999-01-01T00:00:00Z", stdout=out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["kind"] for line in lines] == ["consumer", "key", "tier"]
    assert key.digest not in out.getvalue()
    assert text not in out.getvalue()
    out = StringIO()
    call_command("changes", "--as-of", "2020-01-01", stdout=out)
    assert out.getvalue() == ""


def test_the_command_lists_the_latest_changes():
    tier = create_tier(name="gold", by="ann")
    delete_tier(tier, by="bob")
    out = StringIO()
    call_command("changes", "--limit", "1", stdout=out)
    assert out.getvalue().split()[1:] == ["bob", "tier", "gold", "deleted"]


def test_the_command_shows_what_changed_between_two_instants():
    consumer = create_consumer(name="acme", tier=create_tier(name="gold", by="ann"), by="ann")
    since = timezone.now().isoformat()
    key, _ = issue_key(consumer=consumer, by="ann")
    update_consumer(consumer, email="api@acme.example", by="ann")
    out = StringIO()
    call_command("changes", "--since", since, "--no-color", stdout=out)
    assert out.getvalue().startswith('~ consumer acme\n    - email: ""\n    + email: "api@acme.example"\n')
    assert out.getvalue().endswith("1 created, 1 updated.\n")
    assert key.digest not in out.getvalue()
    out = StringIO()
    call_command("changes", "--since", since, "--until", since, stdout=out)
    assert out.getvalue() == "Nothing to change.\n"
    with pytest.raises(CommandError, match="--as-of, or --since"):
        call_command("changes", "--until", since)


@pytest.mark.parametrize("instant", ["yesterday", "2026-13-01T00:00:00Z", ""])
def test_an_invalid_instant_is_reported(instant):
    with pytest.raises(CommandError):
        call_command("changes", "--as-of", instant)


def test_the_history_of_one_object_is_newest_first():
    tier = create_tier(name="gold", by="ann")
    create_tier(name="other", by="ann")
    update_tier(tier, description="x", by="bob")
    assert [change.actor for change in Change.objects.of("tier", "gold")] == ["bob", "ann"]
