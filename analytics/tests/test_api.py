"""The ledger and usage in the management API."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from django.contrib.auth import get_user_model

from analytics.models import ConnectionRecord, UsageMinute
from audit import bus

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture
def staff(client):
    client.force_login(get_user_model().objects.create_superuser("ann", password="x"))
    return client


@pytest.fixture
def connections():
    made = {"process": "web-1", "consumer": "acme", "key": "k", "tier": "gold", "ip": "192.0.2.1", "opened_at": NOON}
    ConnectionRecord.objects.create(id="aa", protocol="websocket", route="feed", **made)
    ConnectionRecord.objects.create(id="bb", protocol="mqtt", channel="mqtt", closed_at=NOON, close_code=0, **made)


def ids(answer):
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["aa", "bb"]),
        ("?state=open", ["aa"]),
        ("?state=closed", ["bb"]),
        ("?protocol=mqtt", ["bb"]),
        ("?consumer=nobody", []),
        ("?consumer=acme&route=feed", ["aa"]),
    ],
)
def test_connections_are_filtered(staff, connections, query, found):
    assert ids(staff.get(f"/api/v1/connections/{query}")) == found


def test_a_connection_has_the_documented_fields(staff, connections):
    row = staff.get("/api/v1/connections/aa").json()
    assert set(row) == {
        "id", "consumer", "key", "tier", "protocol", "route", "channel", "ip", "opened_at", "closed_at", "closed_by",
        "close_code", "error_class", "messages_in", "messages_out", "bytes_in", "bytes_out", "throttled",
        "subscriptions",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", ["connections/?colour=red", "connections/?state=ajar", "usage/?day=1", "usage/?group=year"]
)
def test_unknown_filters_are_refused(staff, path):
    assert staff.get(f"/api/v1/{path}").status_code == 400


def test_closing_a_connection_is_said_to_every_process(staff, connections, monkeypatch):
    body = []
    monkeypatch.setattr(bus, "publish", lambda subject, data: body.append((subject, orjson.loads(data))))
    assert staff.delete("/api/v1/connections/aa").status_code == 204
    assert staff.delete("/api/v1/connections/bb").status_code == 204
    assert body == [("_apimgmt.control.close", {"connection": "aa"})]


def test_strangers_see_nothing(client, connections):
    assert client.get("/api/v1/connections/").status_code == 401
    assert client.get("/api/v1/usage/", headers={"authorization": "Bearer apim_x"}).status_code == 401


def test_usage_is_summed_by_minute_or_hour(staff):
    for minutes, key in ((0, "k1"), (0, "k2"), (1, "k1")):
        UsageMinute.objects.create(
            minute=NOON + timedelta(minutes=minutes), protocol="http", consumer="acme", key=key, outcome="ok", calls=2
        )
    by_minute = staff.get("/api/v1/usage/?consumer=acme").json()["results"]
    assert [row["calls"] for row in by_minute] == [2, 4]
    by_hour = staff.get("/api/v1/usage/?group=hour").json()["results"]
    assert [(row["minute"], row["calls"]) for row in by_hour] == [("2026-01-31T12:00:00Z", 6)]
    late = staff.get("/api/v1/usage/?from=2026-01-31T12:01:00Z&to=2026-01-31T13:00:00Z").json()["results"]
    assert [row["calls"] for row in late] == [2]
