import pytest
from django.core.exceptions import ValidationError

from audit.models import Change
from consumers.services import create_consumer, create_tier, delete_consumer
from events import subscriptions
from events.models import Subscription
from events.services import create_channel
from events.subscriptions import create_subscription, report_state, rotate_secret, update_subscription

pytestmark = pytest.mark.django_db


@pytest.fixture
def consumer():
    create_channel(address="trades", by="test")
    create_channel(address="sensors/{id}/reading", by="test")
    return create_consumer(name="acme", tier=create_tier(name="free", by="test"), by="test")


@pytest.fixture
def make(consumer):
    def made(type_="pull", **fields):
        named = {"channel": "trades", "position": 5, "by": "ann", **fields}
        if type_ == "webhook":
            named.setdefault("url", "https://1.1.1.1/hook")
        return create_subscription(consumer=consumer, type=type_, **named)

    return made


def test_each_change_is_recorded_without_a_secret(make):
    row, secret = make("webhook")
    update_subscription(row, state="paused", by="ben")
    _, rotated = rotate_secret(row, overlap_s=60, by="cleo")
    name = row.id
    subscriptions.delete_subscription(row, by="dan")
    changes = Change.objects.filter(kind="subscription", name=name).order_by("id")
    assert [change.actor for change in changes] == ["ann", "ben", "cleo", "dan"]
    assert [change.before["version"] for change in changes[1:]] == [1, 2, 3]
    reported = str([[change.before, change.after, change.note] for change in changes])
    assert secret.startswith("whsec_")
    assert secret != rotated
    for text in (secret, rotated, "whsec_"):
        assert text not in reported


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("channel", 1, 8)),
        ({"max_in_flight": 5}, ("key", 5, 8)),
        ({"order": "key"}, ("key", 1, 8)),
        ({"retry_schedule_s": [0, 1]}, ("channel", 1, 2)),
        ({"retry_schedule_s": [0, 1], "max_attempts": 7}, ("channel", 1, 7)),
    ],
)
def test_what_is_left_out_follows_from_the_rest(make, fields, expected):
    row, _ = make("webhook", **fields)
    assert (row.order, row.max_in_flight, row.max_attempts) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/", "http://127.0.0.1", "http://0x7f000001/", "http://2130706433/", "http://0177.0.0.1/",
        "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://169.254.169.254/latest", "http://10.0.0.1/",
        "http://user@1.1.1.1/", "http://1.1.1.1@127.0.0.1/", "http://1.1.1.1/#x", "ftp://1.1.1.1/", "//1.1.1.1/",
        "1.1.1.1",
        "http://1.1.1.1:99999/", "http://1.1.1.1\\@127.0.0.1/", "http://1.1.1.1/\r\nx: y", "http://1.1.1.1/ x", "http://",
        "http://ex\u00e4mple.com/", "http://[::1", "https://1.1.1.1/" + "x" * 2000, 5, None, "", "http://127.1:80/",
        "http://[64:ff9b::7f00:1]/", "javascript:alert(1)", "http://1.1.1.1:0x50/", "http://127.0.0.1./",
        "http://%31%32%37.0.0.1/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["url", "alert_url"])
def test_no_inner_address_and_no_trick_is_registered(make, url, field):
    if field == "alert_url" and url in (None, ""):
        return
    with pytest.raises(ValidationError):
        make("webhook", **{field: url}, alert_lag_events=1)
    assert not Subscription.objects.exists()


def test_a_url_is_looked_at_again_when_it_changes(make):
    row, _ = make("webhook")
    with pytest.raises(ValidationError):
        update_subscription(row, url="http://127.0.0.1/", by="ann")
    row.refresh_from_db()
    assert row.url == "https://1.1.1.1/hook"


def test_what_the_deliverer_finds_does_not_undo_what_was_asked_for(make):
    row, _ = make("webhook")
    report_state(row, state="paused", reason="endpoint-failing", by="delivery")
    assert (row.state, row.state_reason) == ("paused", "endpoint-failing")
    report_state(row, state="active", reason="", by="delivery")
    assert row.state == "active"
    update_subscription(row, state="paused", by="ann")
    report_state(row, state="active", reason="", by="delivery")
    report_state(row, state="ended", reason="endpoint-gone", by="delivery")
    assert (row.state, row.state_reason) == ("paused", "requested")


def test_one_that_has_ended_only_begins_again(make):
    row, _ = make("webhook")
    report_state(row, state="ended", reason="endpoint-gone", by="delivery")
    with pytest.raises(ValidationError, match="has ended"):
        update_subscription(row, max_attempts=2, by="ann")
    update_subscription(row, state="active", max_attempts=2, by="ann")
    assert (row.state, row.state_reason, row.max_attempts) == ("active", "", 2)


def test_a_consumer_has_a_bounded_number(make, monkeypatch):
    monkeypatch.setattr(subscriptions, "A_CONSUMER_MAX", 2)
    make()
    make()
    with pytest.raises(ValidationError, match="at most 2"):
        make()


def test_they_go_with_their_consumer_each_recorded(make, consumer):
    made = {make()[0].id, make("webhook")[0].id}
    delete_consumer(consumer, by="ann")
    assert {change.name for change in Change.objects.filter(kind="subscription", action="deleted")} == made


@pytest.mark.parametrize("overlap_s", [-1, True, 1.5, 10**9, "1"])
def test_an_overlap_is_bounded(make, overlap_s):
    row, _ = make("webhook")
    with pytest.raises(ValidationError):
        rotate_secret(row, overlap_s=overlap_s, by="ann")


def test_what_signs_nothing_has_no_secret(make):
    row, secret = make()
    assert secret is None
    with pytest.raises(ValidationError, match="no secret to rotate"):
        rotate_secret(row, by="ann")
    _, secret = make(alert_url="https://1.1.1.1/", alert_lag_s=60)
    assert secret.startswith("whsec_")
