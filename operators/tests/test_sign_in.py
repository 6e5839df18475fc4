import json
import time
from io import StringIO

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import CommandError, call_command
from redis.exceptions import ConnectionError as Away
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from keys.models import Key
from operators import throttle
from operators.tokens import issue_token

WRONG = {"username": "olga", "password": "wrong"}
RIGHT = {"username": "olga", "password": "a-long-enough-passphrase"}


@pytest.fixture
def one_instant():
    """Put every attempt into the same minute, however long the test takes."""
    with time_machine.travel(time.time(), tick=False):
        yield


def tried(client, data):
    return client.post("/admin/login/?next=/admin/", data)


@pytest.mark.usefixtures("one_instant")
def test_too_many_attempts_to_sign_in_are_refused_even_with_the_password(client, operator):
    for _ in range(10):
        assert tried(client, WRONG).status_code == 200
    answer = tried(client, RIGHT)
    assert (answer.status_code, answer["retry-after"]) == (429, "60")
    assert b"Too many attempts" in answer.content
    cache.clear()
    assert tried(client, RIGHT).status_code == 302


def test_operators_sign_in_while_the_counters_are_unavailable(client, operator, monkeypatch):
    def away(**kwargs):
        raise Away("no answer")

    monkeypatch.setattr(throttle, "is_ratelimited", away)
    assert tried(client, RIGHT).status_code == 302


@pytest.mark.usefixtures("one_instant")
def test_issuing_keys_is_rate_limited(client, operator, consumer):
    client.force_login(operator)
    data = {"consumer": consumer.pk, "scopes": "call:*", "limits-total": "0"}
    for _ in range(60):
        assert client.post("/admin/keys/key/add/", data).status_code == 200
    assert client.post("/admin/keys/key/add/", data).status_code == 302
    assert Key.objects.count() == 60


def test_only_a_digest_of_a_token_is_stored_and_a_new_one_replaces_it(operator):
    def status(token):
        return APIClient().get("/api/v1/tiers", HTTP_AUTHORIZATION=f"Token {token}").status_code

    first = issue_token(operator)
    kept = Token.objects.get().key
    assert kept != first
    assert (status(first), status(kept)) == (200, 401)
    second = issue_token(operator)
    assert (status(first), status(second)) == (401, 200)


def test_a_token_is_issued_on_the_command_line_to_operators_alone(operator):
    out = StringIO()
    call_command("issue_token", "olga", "--json", stdout=out)
    token = json.loads(out.getvalue())["token"]
    assert APIClient().get("/api/v1/tiers", HTTP_AUTHORIZATION=f"Token {token}").status_code == 200
    User.objects.create_user("eve")
    for name in ("eve", "nobody"):
        with pytest.raises(CommandError):
            call_command("issue_token", name)
