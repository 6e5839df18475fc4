"""What usage says of limits: projected once, and shown to those on call."""

import time
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model

from analytics import services
from analytics.models import LimitMinute
from analytics.tests.test_services import batch

pytestmark = pytest.mark.django_db


def limit_record(**more):
    return {
        "minute": int(time.time() // 60 * 60),
        "consumer": "acme",
        "name": "requests-per-10s",
        "scope": "consumer",
        "mode": "enforce",
        "route": "",
        "reason": "",
        "refused": 0,
        "shadowed": 0,
        "unshared": 0.0,
        "level": None,
        **more,
    }


def near(level, left):
    return limit_record(level=level, left=left, resets_at=time.time() + 90)


def project(*records):
    position = services.position("made")
    services.project([(position + 1, batch(limits=list(records)))], "made", after=position)


@pytest.fixture
def page(client):
    user = get_user_model().objects.create_superuser("ops", password="x")
    client.force_login(user)
    return lambda query="": client.get(f"/dashboards/limits{query}")


def test_a_page_that_does_not_exist_is_not_found(client):
    assert [client.get(path).status_code for path in ("/dashboards/nowhere", "/dashboards/nowhere/")] == [404, 302]
    assert client.get("/dashboards/nowhere/", follow=True).status_code == 404


def test_a_closing_slash_leads_to_the_page(client):
    answer = client.get("/dashboards/limits/?period=day")
    assert (answer.status_code, answer["Location"]) == (302, "/dashboards/limits?period=day")


def test_counts_of_a_minute_add_up_and_the_highest_level_stands():
    project(limit_record(refused=2), near(0.6, 8))
    project(limit_record(refused=3, shadowed=1), near(0.9, 2), near(0.7, 5))
    row = LimitMinute.objects.get()
    assert (row.refused, row.shadowed, row.level, row.left) == (5, 1, 0.9, 2)
    assert row.resets_at > datetime.now(UTC)


def test_a_batch_without_limits_is_projected_as_before():
    project()
    assert not LimitMinute.objects.exists()


def test_the_page_shows_who_is_near_who_was_refused_and_what_shadows_would_have_refused(page):
    project(
        near(0.95, 1),
        limit_record(consumer="bolt", refused=1234),
        limit_record(
            consumer="dyno", name="validate", scope="policy", mode="shadow", route="orders", reason="x", shadowed=7
        ),
        limit_record(consumer="echo", unshared=41.0),
    )
    html = page().content.decode()
    for text in ('value="95"', "1,234", "validate", "orders", "41 calls or messages"):
        assert text in html


def test_who_is_full_again_is_near_no_more(page):
    project(near(0.95, 1) | {"resets_at": time.time() - 1, "consumer": "rested"}, near(0.6, 8) | {"consumer": "busy"})
    shown = page().content.decode()
    assert "busy" in shown
    assert "rested" not in shown


def test_a_limit_stays_near_until_the_last_word_on_it_is_over(page):
    project(near(0.95, 1) | {"resets_at": time.time() - 1}, near(0.6, 8))
    assert "acme" in page().content.decode()


def test_an_empty_page_says_what_would_fill_it(page):
    html = page().content.decode()
    assert "No consumer has used half of a limit" in html
    assert "No limit has refused anything" in html


def test_names_are_shown_as_text(page):
    project(limit_record(consumer="<script>alert(1)</script>", refused=1))
    assert "<script>alert" not in page().content.decode()


@pytest.mark.parametrize(("query", "status"), [("?consumer=acme", 200), ("?period=ever", 400), ("?colour=red", 400)])
def test_filters_that_there_are_not_are_refused(page, query, status):
    assert page(query).status_code == status


def test_filters_leave_out_others(page):
    project(limit_record(refused=1), limit_record(consumer="bolt", refused=1))
    html = page("?consumer=bolt").content.decode()
    assert "<td>bolt</td>" in html
    assert "<td>acme</td>" not in html


def test_strangers_are_asked_to_sign_in(client):
    assert client.get("/dashboards/limits").status_code == 302
