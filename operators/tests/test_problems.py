import json

import pytest
from rest_framework.test import APIClient

from accounts.tests.tokens import token_of
from consumers.models import Consumer
from events import letters
from events.models import Channel
from events.services import create_channel
from operators.tests.api_cases import UPSTREAM, dead_letter, problem
from routes.models import Route


def test_an_unexpected_error_is_answered_without_detail(api, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("secret inner detail")

    monkeypatch.setattr(letters, "discard", broken)
    reply = problem(api.delete(f"/api/v1/dead-letters/{dead_letter().id}"), 500, "internal")
    assert "secret" not in json.dumps(reply)
    assert "secret inner detail" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b'{"name": NaN}',
        b'{"name": "a", "name": "b"}',
        b'{"metadata": ' + b"[" * 100_000,
        b'{"name": "\\ud800", "tier": "gold"}',
        b'{"name": "a\\u0000", "tier": "gold"}',
        b"\xff\xfe",
        b'{"name": "a", "tier": "gold", "metadata": {"n": ' + b"9" * 500 + b"}}",
        b'{"name": {"a": 1}, "tier": ["gold"], "is_active": "perhaps"}',
    ],
)
def test_a_body_that_is_not_a_plain_object_is_refused(api, tier, body):
    problem(api.generic("POST", "/api/v1/consumers/", body, content_type="application/json"), 400, "invalid-request")
    assert not Consumer.objects.exists()


def test_a_body_too_large_or_of_another_type_is_refused(api):
    body = json.dumps({"name": "a", "description": "x" * 1_100_000})
    problem(api.generic("POST", "/api/v1/tiers/", body, content_type="application/json"), 413, "too-large")
    problem(api.generic("POST", "/api/v1/tiers/", "a=b", content_type="text/plain"), 415, "invalid-request")


@pytest.mark.parametrize("address", ["nothing", "tiers/a/b/c", "", "tiers/none", "channels/none", "keys/none/revoke"])
def test_an_unknown_url_is_a_problem(api, address):
    answer = api.post(f"/api/v1/{address}") if address.endswith("revoke") else api.get(f"/api/v1/{address}")
    problem(answer, 404, "not-found")


@pytest.mark.parametrize(
    "address", ["nothing", "dead-letters/x/redrive", "dead-letters/" + "9" * 30, "connections/x/y"]
)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_an_unknown_url_is_a_problem_for_every_method(operator, address, method):
    client = APIClient(enforce_csrf_checks=True)
    client.credentials(HTTP_AUTHORIZATION=f"Token {token_of(operator)}")
    problem(getattr(client, method)(f"/api/v1/{address}"), 404, "not-found")


def test_an_error_deep_in_a_field_has_its_path(api):
    limits = [{"metric": "requests", "amount": 5, "per": 1}, {"metric": "requests", "amount": -1, "per": 1}]
    reply = problem(api.post("/api/v1/tiers/", {"name": "t", "limits": limits}), 400, "invalid-request")
    assert reply["errors"] == {"limits[1].amount": ["Must be a number greater than 0."]}


def test_routes_and_channels_say_what_is_wrong_with_them(api):
    bad_route = {"name": "r", "path": "/v1/x", "handler": UPSTREAM}
    assert problem(api.post("/api/v1/routes", bad_route), 400, "invalid-request")["errors"].keys() == {"path"}
    bad_channel = {"address": "a/+"}
    assert problem(api.post("/api/v1/channels", bad_channel), 400, "invalid-request")["errors"].keys() == {"address"}
    assert not Route.objects.exists()
    assert not Channel.objects.exists()


JUNK = [None, True, -1, 0, 1.5, 10**30, 10**400, "", "x" * 5000, "\x00", [], [[]], {}, {"a": {}}, ["a"], "NaN", "-"]


SUBSCRIPTION_FIELDS = [
    "consumer", "key", "type", "channel", "url", "order", "max_in_flight", "max_attempts", "retry_schedule_s",
    "ack_wait_s", "alert_url", "alert_lag_events", "alert_lag_s", "from", "state",
]  # fmt: skip


@pytest.mark.parametrize("name", SUBSCRIPTION_FIELDS)
def test_no_value_of_a_field_of_a_subscription_causes_an_internal_error(api, consumer, settings, name):
    settings.NATS_URL = ""
    create_channel(address="trades", by="test")
    whole = {"consumer": consumer.name, "type": "pull", "channel": "trades", "from": "earliest"}
    made = api.post("/api/v1/subscriptions/", whole, format="json")
    assert made.status_code == 201, made.content
    for value in JUNK:
        for answer in (
            api.post("/api/v1/subscriptions/", {**whole, name: value}, format="json"),
            api.patch(f"/api/v1/subscriptions/{made.json()['id']}", {name: value}, format="json"),
            api.post(f"/api/v1/subscriptions/{made.json()['id']}/rotate", {"overlap_s": value}, format="json"),
        ):
            assert answer.status_code < 500 or answer.json()["reason"] == "overloaded", (value, answer.content)
