"""What is refused on the operators' origin is in the log, and no stranger can fill it."""

import logging

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.WARNING, "operators.refused_operators")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "operators.refused_operators"]


def test_an_operator_without_the_right_is_logged_with_what_it_tried(db, logged):
    client = APIClient()
    client.force_login(User.objects.create_user("sam", is_staff=True))
    for _ in range(3):
        assert client.get("/api/v1/tiers").status_code == 403
    assert client.get("/dashboards/usage").status_code == 403
    assert logged() == [
        f"refused with 403: GET {path} by the operator sam at 127.0.0.1"
        for path in ("/api/v1/tiers", "/dashboards/usage")
    ]


def test_a_stranger_has_one_line_for_all_its_calls(db, logged):
    client = APIClient()
    for number in range(5):
        headers = {"HTTP_AUTHORIZATION": f"Token {number}", "REMOTE_ADDR": f"2001:db8::{number}"}
        assert client.get(f"/api/v1/tiers/{number}", **headers).status_code == 401
    assert logged() == ["refused with 401: GET /api/v1/tiers/0 by a stranger at 2001:db8::0"]


def test_a_page_of_another_origin_is_logged(db, logged):
    answer = APIClient().post("/api/v1/tiers", {}, HTTP_SEC_FETCH_SITE="cross-site", REMOTE_ADDR="192.0.2.8")
    assert answer.status_code == 403
    assert logged() == ["refused with 403: POST /api/v1/tiers by a stranger at 192.0.2.8"]
