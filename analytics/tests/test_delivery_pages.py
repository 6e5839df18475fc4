"""The pages of what is delivered: what they show, and what may be done there."""

import re
from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from audit import bus
from audit.models import Change
from consumers.services import create_consumer, create_tier
from events import letter_jobs, subscription_status
from events.letter_job_models import DeadLetterJob
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
    assert "Discard 1 event" in staff.get(f"{LETTERS}/{second.pk}/discard").content.decode()
    assert DeadLetter.objects.exists()
    staff.post(f"{LETTERS}/{second.pk}/discard")
    assert not DeadLetter.objects.exists()
    assert staff.post(f"{LETTERS}/{second.pk}/redrive").status_code == 404


def confirm(staff, page):
    """Confirm what a page asks, as its form does. Returns the page of the job, once it has run."""
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.content.decode()))
    answer = staff.post(page.request["PATH_INFO"], {name: unescape(value) for name, value in fields.items()})
    letter_jobs.run(answer.url.rpartition("/")[2])
    return staff.get(answer.url).content.decode()


def test_those_that_are_shown_are_put_back_after_the_question_and_no_others(staff, stored):
    create_channel(address="trades", by="test")
    letter(1), letter(2)
    other = letter(3, consumer="bolt", event={"data": 1})
    page = staff.get(f"{LETTERS}/redrive?consumer=bolt")
    assert "Redrive 1 dead letter?" in page.content.decode()
    assert DeadLetter.objects.filter(pk=other.pk).exists()
    assert "completed" in confirm(staff, page)
    assert not DeadLetter.objects.filter(pk=other.pk).exists()
    page = staff.get(f"{LETTERS}/redrive?all=true")
    late = letter(9)
    confirm(staff, page)
    assert len(stored) == 3
    assert DeadLetter.objects.get() == late


def test_many_letters_are_discarded_after_the_question(staff):
    letter(1), letter(2, channel="other")
    page = staff.get(f"{LETTERS}/discard?channel=trades")
    text = page.content.decode()
    assert "Discard 1 dead letter?" in text
    assert "channel is trades" in text
    assert "completed" in confirm(staff, page)
    assert DeadLetter.objects.get().channel == "other"
    (change,) = Change.objects.filter(kind="dead-letters")
    assert change.actor == "ann"


@pytest.mark.parametrize("action", ["redrive", "discard"])
@pytest.mark.parametrize(
    ("filters", "name"),
    [("", "all"), ("channel=", "channel"), ("channel=a&channel=b", "channel"), ("colour=red", "colour"),
     ("all=yes", "all"), ("all=true&channel=a", "all"), ("reason=%00", "reason")],
)  # fmt: skip
def test_letters_that_are_not_named_are_not_settled(staff, action, filters, name):
    letter()
    for answer in (
        staff.get(f"{LETTERS}/{action}?{filters}"),
        staff.post(f"{LETTERS}/{action}", {"filters": filters, "last_id": "99999"}),
    ):
        assert answer.status_code == 400
        assert name in answer.content.decode()
    assert not DeadLetterJob.objects.exists()


def test_a_post_that_confirms_nothing_shows_the_question(staff):
    letter()
    page = staff.post(f"{LETTERS}/discard", {"filters": "all=true"})
    assert "Discard 1 dead letter?" in page.content.decode()
    assert not DeadLetterJob.objects.exists()


def test_a_job_is_stopped_from_its_page(staff):
    letter()
    job = letter_jobs.start_job(action="discard", selection={}, by="ann")
    assert 'data-reload="2"' in staff.get(f"{LETTERS}/jobs/{job.id}").content.decode()
    page = staff.post(f"{LETTERS}/jobs/{job.id}/cancel", follow=True).content.decode()
    assert "Cancelled by ann." in page
    assert 'data-reload=""' in page
    assert staff.get(f"{LETTERS}/jobs/nothing").status_code == 404


@pytest.mark.parametrize(
    ("path", "name"),
    [(LETTERS, "channel"), ("/dashboards/subscriptions", "type"), ("/dashboards/connections", "consumer"),
     ("/dashboards/connections", "state"), ("/dashboards/usage", "protocol"), ("/dashboards/usage", "period"),
     ("/dashboards/limits", "name"), ("/dashboards/limits", "period"), (LETTERS, "page")],
)  # fmt: skip
def test_empty_and_repeated_filters_of_pages_are_refused_by_name(staff, path, name):
    for query in (f"{name}=", f"{name}=%20", f"{name}=a&{name}=b"):
        answer = staff.get(f"{path}?{query}")
        assert (answer.status_code, name in answer.content.decode()) == (400, True), query


@pytest.mark.parametrize(
    "query", ["connections?state=banana", "connections?page=0", "usage?from=yesterday", "subscriptions?page=x",
              "usage?period=never", "dead-letters?page=-1", "connections?protocol=banana&page=1x"],
)  # fmt: skip
def test_malformed_filters_of_pages_are_refused(staff, query):
    assert staff.get(f"/dashboards/{query}").status_code == 400


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
    job = letter_jobs.start_job(action="discard", selection={}, by="ann")
    assert client.get(f"{LETTERS}/jobs/{job.id}").status_code == 200
    many = (f"{LETTERS}/redrive", f"{LETTERS}/discard", f"{LETTERS}/jobs/{job.id}/cancel")
    for path in (f"{LETTERS}/{kept.pk}/redrive", f"{LETTERS}/{kept.pk}/discard", *many):
        assert client.post(path, {"filters": "all=true", "last_id": "1"}).status_code == 403
    assert client.get(f"{LETTERS}/discard?all=true").status_code == 403
    assert client.get("/dashboards/subscriptions").status_code == 403
