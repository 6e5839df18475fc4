"""The pages: who sees them, what they cost, what they let in."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.utils import timezone

from analytics import pages
from analytics.models import ConnectionRecord, UsageMinute
from audit import bus
from gateway.refusals import Reason

pytestmark = pytest.mark.django_db

PAGES = [
    "/dashboards/", "/dashboards/connections", "/dashboards/usage", "/dashboards/subscriptions",
    "/dashboards/dead-letters",
]  # fmt: skip
VENDORED = sorted((Path(settings.BASE_DIR) / "static" / "vendor").glob("*/SHA256SUMS"))


LABEL = {"protocol": "http", "consumer": "acme", "tier": "gold", "target": "quotes"}


@pytest.fixture(autouse=True)
def _no_tries_yet():
    cache.clear()


@pytest.fixture
def staff(client):
    client.force_login(get_user_model().objects.create_superuser("ann", password="x"))
    return client


@pytest.fixture
def connection():
    return ConnectionRecord.objects.create(
        id="aa", process="web-1", consumer="acme", key="k", tier="gold", protocol="websocket", route="feed",
        ip="192.0.2.1", opened_at=timezone.now(),
    )  # fmt: skip


@pytest.fixture
def published(monkeypatch):
    """Return the messages to the data plane."""
    published = []
    monkeypatch.setattr(bus, "publish", lambda subject, data: published.append((subject, orjson.loads(data))))
    return published


@pytest.mark.parametrize("path", [*PAGES, "/dashboards/last-hour"])
def test_dashboards_are_for_staff(client, path):
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer.url.startswith("/dashboards/login")


@pytest.mark.parametrize(
    "path", ["/dashboards/", "/dashboards/connections?state=closed&consumer=x", "/dashboards/usage", "/docs/", "/"]
)
def test_staff_see_them_within_a_budget_of_queries(staff, path, django_assert_max_num_queries):
    with django_assert_max_num_queries(9):
        answer = staff.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


@pytest.mark.parametrize("path", [*PAGES, "/dashboards/last-hour", "/dashboards/live"])
def test_staff_without_the_permission_are_told_no(client, path):
    client.force_login(get_user_model().objects.create_user("eve", password="x", is_staff=True))
    assert client.get(path).status_code == 403


async def test_the_live_stream_refuses_strangers(async_client):
    assert (await async_client.get("/dashboards/live")).status_code == 403


def seed(answer):
    found = re.search(r'<script id="seed" type="application/json">(.*?)</script>', answer.content.decode())
    return orjson.loads(found[1])


def test_the_first_paint_has_the_last_hour(staff, connection):
    for minutes_ago, outcome in ((3, "ok"), (2, "rate-limited"), (70, "key-unknown")):
        minute = timezone.now() - timedelta(minutes=minutes_ago)
        UsageMinute.objects.create(minute=minute, outcome=outcome, calls=2, messages_in=3, **LABEL)
    shown = seed(staff.get("/dashboards/"))
    assert shown["refused"] == {"rate-limited": 2}
    assert (shown["consumers"], shown["targets"]) == ({"acme": 10}, {"quotes": 10})
    assert shown["open"] == {"websocket": 1}
    assert [row[1:] for row in shown["minutes"]] == [["http", 2, 3, 0]] * 2
    later = staff.get("/dashboards/last-hour").json()
    assert later == {name: shown[name] for name in later}


def test_the_ledger_is_filtered_by_its_address(staff, connection):
    assert b"acme" in staff.get("/dashboards/connections?protocol=websocket&consumer=acme").content
    assert b"No connection matches" in staff.get("/dashboards/connections?state=closed").content
    assert b"No connection matches" in staff.get("/dashboards/connections?route=other").content


@pytest.mark.parametrize(
    "path", ["connections?colour=red", "connections?state=ajar", "usage?period=decade", "usage?from=then"]
)
def test_filters_that_do_not_exist_are_told(staff, path):
    answer = staff.get(f"/dashboards/{path}")
    assert answer.status_code == 400
    assert b'role="alert"' in answer.content


def test_usage_is_that_of_the_period_and_the_filters(staff):
    now = timezone.now()
    for hours_ago, calls in ((0, 1), (3, 20), (30, 300)):
        UsageMinute.objects.create(minute=now - timedelta(hours=hours_ago), outcome="ok", calls=calls, **LABEL)

    def calls(query):
        return staff.get(f"/dashboards/usage{query}").context["report"]["total"]["all_calls"]

    assert [calls(f"?period={period}") for period in ("hour", "day", "week", "month")] == [1, 21, 321, 321]
    assert calls("") == 21
    assert calls("?target=quotes&consumer=acme&protocol=http") == 21
    assert calls("?consumer=other") == 0


def test_an_operator_disconnects_and_comes_back_to_the_same_filters(staff, connection, published):
    answer = staff.post("/dashboards/connections/aa/disconnect", {"filters": "state=open&consumer=acme"}, follow=True)
    assert published == [("_apimgmt.control.close", {"connection": "aa"})]
    assert answer.redirect_chain == [("/dashboards/connections?state=open&consumer=acme", 302)]
    assert b"is being closed" in answer.content


def test_disconnecting_needs_a_post_and_the_permission(staff, client, connection, published):
    assert staff.get("/dashboards/connections/aa/disconnect").status_code == 405
    client.force_login(get_user_model().objects.create_user("eve", password="x", is_staff=True))
    assert client.post("/dashboards/connections/aa/disconnect").status_code == 403
    assert published == []


def test_the_way_back_leads_nowhere_else(staff, connection, published):
    answer = staff.post("/dashboards/connections/aa/disconnect", {"filters": "//evil.example/\r\nX: 1"})
    assert answer.url.startswith("/dashboards/connections?")
    assert "\n" not in answer.url


def test_what_could_not_be_closed_is_told(staff, connection, monkeypatch):
    def away(subject, data):
        raise bus.Unavailable("no answer")

    monkeypatch.setattr(bus, "publish", away)
    answer = staff.post("/dashboards/connections/aa/disconnect", follow=True)
    assert b"was not closed" in answer.content


def test_signing_in_leads_to_where_one_wanted(client):
    get_user_model().objects.create_superuser("ann", password="right")
    form = {"username": "ann", "password": "right", "next": "/dashboards/usage"}
    assert client.post("/dashboards/login", form).url == "/dashboards/usage"
    assert client.post("/dashboards/logout").url == "/"


@pytest.mark.parametrize("name", pages.names())
def test_every_document_is_a_page(client, name):
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 200
    assert b"<h1" in answer.content


@pytest.mark.parametrize("name", pages.names())
def test_every_picture_of_a_document_is_there(client, name):
    for source in re.findall(r'<img src="([^"]+)"', pages.page(name).html):
        answer = client.get(f"/docs/{source}")
        assert (answer.status_code, answer["Content-Type"]) == (200, "image/png")
        assert answer.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["images/nothing.png", "images/..%2fdashboards.md", "images/dashboards.md", "images/"])
def test_nothing_else_is_a_picture(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize(
    "name", ["nothing", "../manage", "..%2fmanage", "decisions/../limits", "decisions%2f0001", "README", "images"]
)
def test_nothing_else_is_a_page(client, name):
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("name", pages.names())
def test_links_between_documents_lead_to_pages_and_places_that_there_are(name):
    for linked, anchor in re.findall(r'href="(?:/docs/([a-z0-9/-]+))?(?:#([^"]+))?"', pages.page(name).html):
        there = pages.page(linked or name)
        assert there is not None, linked
        assert not anchor or f'id="{anchor}"' in there.html, (linked, anchor)


def test_each_refusal_has_its_anchor(client):
    page = client.get("/docs/refusals").content.decode()
    for reason in Reason:
        assert f'id="{reason.value}"' in page


@pytest.mark.parametrize("sums", VENDORED, ids=lambda path: path.parent.name)
def test_vendored_files_are_as_they_were_published(sums):
    for line in sums.read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((sums.parent / name).read_bytes()).hexdigest() == digest
