import contextlib
import time

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from redis.exceptions import ConnectionError as Away
from rest_framework.test import APIClient

from accounts.tests.tokens import token_of
from keys.models import Key
from operators import attempts as module
from operators import sign_in
from operators.attempts import Attempts, Budget, UsedUp

WRONG = {"username": "olga", "password": "wrong"}
RIGHT = {"username": "olga", "password": "a-long-enough-passphrase"}
DOORS = ["/admin/login/?next=/admin/", "/dashboards/login"]
SIGNED_IN, SHOWN_AGAIN, TOO_MANY = 302, 200, 429


@pytest.fixture
def one_instant():
    """Put every attempt into the same window, however long the test takes."""
    with time_machine.travel(time.time(), tick=False):
        yield


@pytest.fixture
def cache_away(monkeypatch):
    def away(*arguments, **named):
        raise Away("no answer")

    monkeypatch.setattr(module.cache, "add", away)
    monkeypatch.setattr(module.cache, "incr", away)
    module.attempts.forget()
    monkeypatch.setattr(module.attempts, "_cache_away_until", float("-inf"))


@pytest.fixture(params=["with the cache", "without the cache"])
def counters(request):
    if request.param == "without the cache":
        request.getfixturevalue("cache_away")


def tried(client, data, ip="192.0.2.1", protocol=DOORS[0]):
    return client.post(protocol, data, REMOTE_ADDR=ip).status_code


def guessed(times, data=WRONG, ip="192.0.2.1", protocol=DOORS[0]):
    """Send wrong passwords from a browser that is not known, and return the last answer's status."""
    return [tried(Client(), data, ip, protocol) for _ in range(times)][-1]


pytestmark = pytest.mark.usefixtures("one_instant")


@pytest.mark.usefixtures("counters")
@pytest.mark.parametrize("protocol", DOORS)
def test_guesses_of_an_account_from_an_address_are_refused_even_with_the_password(client, operator, protocol):
    assert guessed(10, protocol=protocol) == SHOWN_AGAIN
    answer = client.post(protocol, RIGHT, REMOTE_ADDR="192.0.2.1")
    assert answer.status_code == TOO_MANY
    assert 0 < int(answer["retry-after"]) <= 60
    assert b"Too many attempts" in answer.content


@pytest.mark.usefixtures("counters")
def test_guesses_lock_out_neither_other_addresses_nor_other_accounts(client, operator):
    User.objects.create_superuser("omar", password=RIGHT["password"])
    guessed(11)
    assert tried(Client(), RIGHT, "192.0.2.2") == SIGNED_IN
    assert tried(Client(), RIGHT | {"username": "omar"}) == SIGNED_IN


def test_the_pages_of_sign_in_share_one_budget(client, operator):
    guessed(5)
    guessed(5, protocol=DOORS[1])
    assert tried(client, RIGHT) == TOO_MANY


@pytest.mark.usefixtures("counters")
def test_a_correct_password_is_no_guess(operator):
    assert [tried(Client(), RIGHT) for _ in range(40)] == [SIGNED_IN] * 40


@pytest.mark.usefixtures("counters")
def test_an_address_that_guesses_many_accounts_is_refused(operator):
    statuses = [tried(Client(), {"username": f"user{number}", "password": "x"}) for number in range(31)]
    assert statuses == [SHOWN_AGAIN] * 30 + [TOO_MANY]


@pytest.mark.usefixtures("counters")
def test_addresses_of_an_ipv6_site_are_one(operator):
    statuses = [tried(Client(), WRONG, f"2001:db8::{number:x}") for number in range(11)]
    assert statuses == [SHOWN_AGAIN] * 10 + [TOO_MANY]
    assert tried(Client(), RIGHT, "2001:db8:0:1::1") == SIGNED_IN


@pytest.mark.usefixtures("counters")
def test_guesses_from_many_addresses_are_bounded_and_do_not_lock_out_the_owner(client, operator):
    assert tried(client, RIGHT, "198.51.100.1") == SIGNED_IN
    client.post("/admin/logout/")
    for number in range(10):
        guessed(10, ip=f"192.0.2.{number}")
    assert [tried(Client(), WRONG, f"192.0.2.{number}") for number in (100, 101, 102)] == [200, 200, TOO_MANY]
    # The owner's browser is known, from wherever it comes; a new one in another network still has its turn.
    assert tried(client, RIGHT, "192.0.2.103") == SIGNED_IN
    assert tried(Client(), RIGHT, "203.0.113.1") == SIGNED_IN


def test_a_known_browser_has_a_budget_of_its_own(client, operator):
    assert tried(client, RIGHT) == SIGNED_IN
    client.post("/admin/logout/")
    guessed(11)
    assert [tried(client, WRONG) for _ in range(11)] == [SHOWN_AGAIN] * 10 + [TOO_MANY]


def test_a_browser_is_known_to_the_accounts_that_it_has_proved_alone(client, operator):
    User.objects.create_superuser("omar", password=RIGHT["password"])
    assert tried(client, RIGHT) == SIGNED_IN
    client.post("/admin/logout/")
    guessed(10, WRONG | {"username": "omar"})
    assert tried(client, RIGHT | {"username": "omar"}) == TOO_MANY
    assert tried(client, RIGHT | {"username": "omar"}, "192.0.2.2") == SIGNED_IN
    client.post("/admin/logout/")
    guessed(10)
    assert tried(client, RIGHT) == SIGNED_IN


def test_a_cookie_that_this_product_did_not_sign_makes_no_known_browser(client, operator):
    assert tried(client, RIGHT) == SIGNED_IN
    cookie = client.cookies["apimgmt_device"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    other = Client()
    other.cookies["apimgmt_device"] = cookie.value[:-1] + ("a" if cookie.value[-1] != "a" else "b")
    guessed(10)
    assert tried(other, RIGHT) == TOO_MANY


def test_guesses_of_the_current_password_are_limited_too(client, operator):
    client.force_login(operator)
    data = {"old_password": "wrong", "new_password1": "another-long-passphrase", "new_password2": "x"}
    statuses = [client.post("/admin/password_change/", data).status_code for _ in range(11)]
    assert statuses == [SHOWN_AGAIN] * 10 + [TOO_MANY]


def test_unknown_tokens_are_throttled_and_lock_out_no_valid_one(operator):
    def status(token):
        return APIClient().get("/api/v1/tiers", HTTP_AUTHORIZATION=f"Token {token}").status_code

    token = token_of(operator)
    assert [status("wrong") for _ in range(21)] == [401] * 20 + [TOO_MANY]
    assert status(token) == 200


def test_sign_ins_that_are_checked_at_once_are_bounded(client, operator, monkeypatch):
    monkeypatch.setattr(sign_in, "CHECK_WAIT_S", 0.01)
    busy = sign_in._checks[False]
    for _ in range(sign_in.CHECKS_AT_ONCE):
        busy.acquire()
    try:
        assert [tried(Client(), RIGHT) for _ in range(11)] == [503] * 11
    finally:
        busy.release(sign_in.CHECKS_AT_ONCE)
    assert tried(Client(), RIGHT) == SIGNED_IN


def test_the_counters_of_a_process_are_bounded(monkeypatch, cache_away):
    monkeypatch.setattr(module, "COUNTERS_KEPT", 10)
    counted, budget = Attempts(), Budget("b", 1, 60)
    for number in range(100):
        counted.charge(budget.counter(str(number), now_s=0))
    assert len(counted._counts) == 10
    with pytest.raises(UsedUp):
        counted.charge(budget.counter("99", now_s=0))


def test_a_refused_attempt_is_counted_nowhere():
    counted = Attempts()
    small, large = Budget("small", 1, 60), Budget("large", 2, 60)
    for _ in range(5):
        with contextlib.suppress(UsedUp):
            counted.charge(large.counter("a", now_s=0), small.counter("a", now_s=0))
    Attempts().charge(large.counter("a", now_s=0))
    with pytest.raises(UsedUp):
        Attempts().charge(large.counter("a", now_s=0))


def test_issuing_keys_is_rate_limited(client, operator, consumer):
    client.force_login(operator)
    data = {"consumer": consumer.pk, "scopes": "call:*", "limits-total": "0"}
    for _ in range(60):
        assert client.post("/admin/keys/key/add/", data).status_code == 200
    assert client.post("/admin/keys/key/add/", data).status_code == 302
    assert Key.objects.count() == 60
