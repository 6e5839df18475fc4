"""The pages of what is delivered: what they show, and what may be done there."""

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from audit import bus
from consumers.services import create_consumer, create_tier
from events import subscription_status
from events.models import DeadLetter
from events.services import create_channel
from events.subscriptions import create_subscription

pytestmark = pytest.mark.django_db
LETTERS = "/dashboards/dead-letters"


@pytest.fixture
def staff(client):
    client.force_login(User.objects.create_superuser("ann", password="x"))
    return client


@pytest.fixture(autouse=True)
def stored(monkeypatch):
    """What was stored in the log, in its order."""
    found = []
    monkeypatch.setattr(bus, "store", lambda *message: found.append(message))
    monkeypatch.setattr(bus, "store_all", found.extend)
    return found


def letter(sequence=1, **fields):
    row = {
        "made_at": "2026", "sequence": sequence, "channel": "trades", "address": "trades", "reason": "undelivered",
        "event": {"data": {"n": sequence}}, "dead_at": timezone.now(),
    }  # fmt: skip
    return DeadLetter.objects.create(**row | fields)


def subscription(**fields):
    create_channel(address="trades", by="test")
    consumer = create_consumer(name="acme", tier=create_tier(name="free", by="test"), by="test")
    return create_subscription(consumer=consumer, type="pull", channel="trades", position=0, by="test", **fields)[0]


def test_subscriptions_are_shown_as_they_stand(staff, monkeypatch):
    row = subscription()
    health = {
        "state": "paused", "state_reason": "key-revoked", "lag": {"events": 12_345, "seconds": 61.2}, "in_flight": 3,
        "last_error": {"at": "2026-11-24T00:00:00Z", "detail": "<b>no</b>"},
    }  # fmt: skip
    monkeypatch.setattr(subscription_status, "healths", lambda: {row.id: health})
    page = staff.get("/dashboards/subscriptions").content.decode()
    for text in (row.id, "paused: key-revoked", "12,345", "61 s", "&lt;b&gt;no&lt;/b&gt;"):
        assert text in page
    assert row.id not in staff.get("/dashboards/subscriptions?type=webhook").content.decode()


def test_where_the_log_does_not_answer_subscriptions_are_shown_all_the_same(staff, settings):
    settings.NATS_URL = ""
    row = subscription()
    assert row.id in staff.get("/dashboards/subscriptions").content.decode()


@pytest.mark.parametrize("path", ["/dashboards/subscriptions", LETTERS])
def test_an_unknown_filter_is_refused_by_name(staff, path):
    answer = staff.get(f"{path}?colour=red")
    assert answer.status_code == 400
    assert "Unknown filter: colour." in answer.content.decode()


def test_a_letter_is_shown_as_text_put_back_or_forgotten(staff, stored):
    create_channel(address="trades", by="test")
    first, second = letter(1, event={"data": "<script>1</script>"}), letter(2)
    page = staff.get(LETTERS).content.decode()
    assert "script&gt;1" not in page
    assert "kept for 30 days, at most 10,000 and 100 MiB of each channel" in page
    event = f"/admin/events/deadletter/{first.pk}/change/"
    assert event in page
    assert "&lt;script&gt;1" in staff.get(event).content.decode()
    answer = staff.post(f"{LETTERS}/{first.pk}/redrive", {"filters": "channel=trades"})
    assert answer.url == f"{LETTERS}?channel=trades"
    assert [data for _, data, _ in stored] == [b'"<script>1</script>"']
    staff.post(f"{LETTERS}/{second.pk}/discard")
    assert not DeadLetter.objects.exists()
    assert staff.post(f"{LETTERS}/{second.pk}/redrive").status_code == 404


def test_those_that_are_shown_are_put_back_and_no_others(staff, stored):
    create_channel(address="trades", by="test")
    letter(1), letter(2)
    other = letter(3, consumer="bolt", event={"data": 1})
    staff.post(f"{LETTERS}/redrive", {"filters": "colour=red"})
    assert not stored
    staff.post(f"{LETTERS}/redrive", {"filters": "consumer=bolt"})
    assert not DeadLetter.objects.filter(pk=other.pk).exists()
    assert len(stored) == 1
    staff.post(f"{LETTERS}/redrive", {"filters": ""})
    assert len(stored) == 3


def test_what_cannot_be_put_back_is_kept_and_said_why(staff):
    kept = letter()
    page = staff.post(f"{LETTERS}/{kept.pk}/redrive", follow=True).content.decode()
    assert "The channel no longer exists." in page
    assert DeadLetter.objects.exists()


def test_who_may_look_may_not_put_back_or_forget(client):
    reader = User.objects.create_user("ben", password="x", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_deadletter"))
    client.force_login(reader)
    kept = letter()
    page = client.get(LETTERS)
    assert page.status_code == 200
    assert "Redrive" not in page.content.decode()
    for path in (f"{LETTERS}/{kept.pk}/redrive", f"{LETTERS}/redrive", f"{LETTERS}/{kept.pk}/discard"):
        assert client.post(path).status_code == 403
    assert client.get("/dashboards/subscriptions").status_code == 403
