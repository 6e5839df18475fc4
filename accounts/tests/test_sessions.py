import time

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from accounts.sessions import end_sessions
from accounts.tests.conftest import PASSWORD
from audit.models import Change

NEW_PASSWORD = "another-long-passphrase"


@pytest.fixture
def clock():
    with time_machine.travel(time.time(), tick=False) as travelling:
        yield travelling


def is_in(browser):
    return browser.get("/admin/").status_code == 200


def test_a_session_ends_after_idle_time(client, operator, sign_in, clock, settings):
    settings.SESSION_IDLE_S = 600
    sign_in()
    for _ in range(5):
        clock.shift(590)
        assert is_in(client)
    clock.shift(601)
    assert not is_in(client)
    clock.shift(-601)
    assert not is_in(client)
    assert not Session.objects.exists()
    ended = Change.objects.get(action="signed-out")
    assert (ended.name, ended.note) == ("olga", "after 600 s without activity, from 127.0.0.1")


def test_a_session_ends_after_its_whole_time_however_active(client, operator, sign_in, clock, settings):
    settings.SESSION_IDLE_S, settings.SESSION_MAX_S = 600, 1500
    sign_in()
    clock.shift(500)
    assert is_in(client)
    clock.shift(500)
    assert is_in(client)
    clock.shift(501)
    assert not is_in(client)


@pytest.mark.parametrize("path", ["/dashboards/last-hour"])
def test_what_an_open_page_asks_by_itself_is_no_activity(client, operator, sign_in, clock, settings, path):
    settings.SESSION_IDLE_S = 600
    sign_in()
    for _ in range(11):
        assert client.get(path).status_code == 200
        clock.shift(55)
    assert client.get(path).status_code == 302


def test_an_ended_session_opens_nothing(client, operator, sign_in, clock, settings):
    settings.SESSION_IDLE_S = 60
    sign_in()
    clock.shift(61)
    assert client.get("/api/v1/tiers/").status_code == 401
    sign_in()
    clock.shift(61)
    assert client.get("/dashboards/live").status_code == 403
    sign_in()
    clock.shift(61)
    answer = client.post("/admin/consumers/tier/add/", {"name": "gold", "limits-total": "0"})
    assert answer.status_code == 302
    assert answer["location"].startswith("/admin/login/")


def test_the_session_id_changes_at_sign_in_and_the_old_one_is_worthless(client, operator, sign_in):
    client.get("/admin/login/")
    client.session.save()
    planted = Client()
    planted.cookies["sessionid"] = Session.objects.create(
        session_key="a" * 32, session_data="", expire_date="2999-01-01T00:00:00Z"
    ).session_key
    sign_in(browser=planted)
    assert planted.cookies["sessionid"].value != "a" * 32
    assert is_in(planted)
    thief = Client()
    thief.cookies["sessionid"] = "a" * 32
    assert not is_in(thief)


def test_a_change_of_password_ends_all_other_sessions(operator, sign_in):
    here, there = Client(), Client()
    for browser in (here, there):
        sign_in(browser=browser)
    form = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert here.post(reverse("admin:password_change"), form).status_code == 302
    assert is_in(here)
    assert not is_in(there)


def test_a_password_that_somebody_else_changed_ends_every_session(operator, make_operator, sign_in):
    sam, browser, admin = make_operator("sam"), Client(), Client()
    sign_in("sam", browser=browser)
    admin.force_login(operator)
    new = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true"}
    assert admin.post(reverse("admin:auth_user_password_change", args=[sam.pk]), new).status_code == 302
    assert not is_in(browser)


def test_the_sessions_of_one_account_are_ended(operator, make_operator, sign_in):
    sam, of_sam, of_olga = make_operator("sam"), Client(), Client()
    sign_in("sam", browser=of_sam)
    sign_in(browser=of_olga)
    assert end_sessions(sam) == 1
    assert not is_in(of_sam)
    assert is_in(of_olga)
    User.objects.filter(pk=operator.pk).update(is_active=False)
    assert not is_in(of_olga)
