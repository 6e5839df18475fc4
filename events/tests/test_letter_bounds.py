"""The bounds of dead letters: by age, and of each channel by number and bytes; the oldest go first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from django.conf import settings as project

from events.letter_bounds import POSITIONS_MAX, keep_bounds
from events.letters import record_dead_letters
from events.models import DeadLetter, DeadLetterPosition
from events.tests.test_letters import LETTER

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def bounds(settings):
    def change(**values):
        settings.RETENTION = replace(project.RETENTION, **values)

    return change


def row(number, *, channel="trades", event_bytes=10, age_days=0):
    return DeadLetter(
        made_at="2026", sequence=number, channel=channel, address=channel, reason="undelivered", event={"data": 1},
        event_bytes=event_bytes, dead_at=NOW - timedelta(days=age_days),
    )  # fmt: skip


def left(channel="trades"):
    return list(DeadLetter.objects.on(channel).order_by("id").values_list("sequence", flat=True))


def test_a_flood_of_letters_leaves_the_newest_of_its_channel_and_all_of_the_others(bounds):
    bounds(dead_letters_rows=3)
    flood = [LETTER | {"channel": "trades"}] * 10
    record_dead_letters([(1, orjson.dumps(LETTER))], "2026")
    record_dead_letters([(2 + number, orjson.dumps(letter)) for number, letter in enumerate(flood)], "2026")
    assert left() == [9, 10, 11]
    assert left("sensors/{id}") == [1]


def test_large_letters_are_bounded_by_their_bytes(bounds):
    bounds(dead_letters_bytes=50_000)
    large = LETTER | {"channel": "trades", "event": {"data": "x" * 20_000}}
    for number in range(5):
        record_dead_letters([(number + 1, orjson.dumps(large))], "2026")
    assert left() == [4, 5]


def test_without_bounds_everything_is_kept(bounds):
    bounds(dead_letters_rows=0, dead_letters_bytes=0, dead_letters_days=0)
    DeadLetter.objects.bulk_create([row(number, age_days=5_000, event_bytes=2**30) for number in range(3)])
    assert list(keep_bounds(NOW)) == []
    assert len(left()) == 3


def test_old_letters_and_those_beyond_a_lowered_bound_go_in_small_batches(bounds):
    bounds(dead_letters_days=30, dead_letters_rows=2)
    DeadLetter.objects.bulk_create([row(number, age_days=31) for number in range(2500)])
    DeadLetter.objects.bulk_create([row(number, age_days=29) for number in range(3000, 4500)])
    DeadLetter.objects.bulk_create([row(9000, channel="other", age_days=29)])
    assert list(keep_bounds(NOW)) == [1000, 1000, 500, 1000, 498]
    assert left() == [4498, 4499]
    assert left("other") == [9000]


def test_positions_in_streams_of_the_past_are_bounded():
    DeadLetterPosition.objects.bulk_create(
        [DeadLetterPosition(made_at=f"2026-{number:04}", sequence=number) for number in range(POSITIONS_MAX + 5)]
    )
    list(keep_bounds(NOW))
    assert DeadLetterPosition.objects.count() == POSITIONS_MAX
    assert DeadLetterPosition.objects.order_by("made_at").first().made_at == "2026-0005"
