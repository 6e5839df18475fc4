import json
import random
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from audit.documents import all_documents, snapshot_document
from audit.models import Change
from audit.services import configuration_as_of
from consumers.models import Consumer, Tier
from consumers.services import (
    create_consumer,
    create_tier,
    delete_consumer,
    delete_tier,
    update_consumer,
    update_tier,
)
from events.models import Channel
from events.services import create_channel, delete_channel, update_channel
from keys.models import Key
from keys.services import issue_key, revoke_key, rotate_key

pytestmark = pytest.mark.django_db

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)


def _step(dice: random.Random, number: int) -> None:
    """Do one random thing that an operator might do."""
    tier, consumer, key, channel = (
        dice.choice([*model.objects.all()] or [None]) for model in (Tier, Consumer, Key, Channel)
    )
    things = [
        lambda: create_tier(name=f"tier-{number}", by="ann"),
        lambda: create_channel(address=f"c/{number}", by="ann"),
    ]
    if tier is not None:
        things.append(lambda: create_consumer(name=f"consumer-{number}", tier=tier, by="ann"))
        things.append(lambda: update_tier(tier, description=str(number), by="ann"))
        if not tier.consumers.exists():
            things.append(lambda: delete_tier(tier, by="ann"))
    if consumer is not None:
        things.append(lambda: issue_key(consumer=consumer, by="ann"))
        things.append(lambda: update_consumer(consumer, metadata={"n": number}, tier=tier, by="ann"))
        things.append(lambda: update_consumer(consumer, is_active=not consumer.is_active, by="ann"))
    if consumer is not None and dice.random() < 0.3:
        things.append(lambda: delete_consumer(consumer, by="ann"))
    if key is not None:
        things.append(lambda: revoke_key(key, by="ann"))
        if Key.objects.usable(timezone.now()).filter(id=key.id).exists():
            things.append(lambda: rotate_key(key, by="ann"))
    if channel is not None:
        things.append(lambda: update_channel(channel, title=str(number), by="ann"))
        things.append(lambda: delete_channel(channel, by="ann"))
    dice.choice(things)()


@pytest.mark.parametrize("seed", range(4))
def test_the_log_alone_tells_the_configuration_of_any_instant(seed, monkeypatch):
    dice = random.Random(seed)
    pictures = []
    for number in range(60):
        at = BEGAN_AT + timedelta(minutes=number)
        monkeypatch.setattr("django.utils.timezone.now", lambda at=at: at)
        _step(dice, number)
        pictures.append((at, all_documents()))
    assert Change.objects.count() >= 40
    assert configuration_as_of(BEGAN_AT - timedelta(seconds=1)) == {}
    for at, picture in pictures:
        told = configuration_as_of(at + timedelta(seconds=30))
        assert {which: snapshot_document(which[0], recorded) for which, recorded in told.items()} == picture


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


@pytest.mark.parametrize("instant", ["yesterday", "2026-13-01T00:00:00Z", ""])
def test_an_instant_that_is_none_is_said(instant):
    with pytest.raises(CommandError):
        call_command("changes", "--as-of", instant)


def test_the_history_of_one_object_is_newest_first():
    tier = create_tier(name="gold", by="ann")
    create_tier(name="other", by="ann")
    update_tier(tier, description="x", by="bob")
    assert [change.actor for change in Change.objects.of("tier", "gold")] == ["bob", "ann"]
