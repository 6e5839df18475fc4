"""A database that somebody holds on to: the data plane does not notice, the management API says to come back."""

import contextlib
import sqlite3

import pytest

from tests.product import Product, eventually

pytestmark = pytest.mark.xdist_group("product")


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    running = Product(tmp_path_factory.mktemp("locked") / "var", DRAIN_S="1")
    yield running
    running.stop()


@contextlib.contextmanager
def locked(product):
    with contextlib.closing(
        sqlite3.connect(product.data_dir / "apimgmt.sqlite3", isolation_level=None, timeout=30)
    ) as database:
        database.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            database.execute("ROLLBACK")


def test_a_locked_database_stops_changes_alone(product):
    key, token = product.ready["keys"]["gold"], product.ready["admin"]["token"]
    operator = {"Authorization": f"Token {token}"}
    subscription = product.call("POST", "/v1/subscriptions", {"type": "pull", "channel": "trades"}, key)[2]
    change = ("PATCH", "/api/v1/tiers/gold", {"description": "changed"})
    with locked(product):
        status, headers, body = product.call(*change, headers=operator)
        assert (status, body["reason"]) == (503, "overloaded")
        assert int(headers["retry-after"]) > 0
        assert product.call("GET", "/api/v1/tiers", headers=operator)[0] in (200, 503)
        status, _, body = product.call("POST", "/v1/subscriptions", {"type": "pull", "channel": "trades"}, key)
        assert (status, body["reason"]) == (503, "overloaded")
        published = product.call("POST", "/v1/channels/trades/events", {"price": 1}, key)
        assert published[0] == 201
        path = f"/v1/subscriptions/{subscription['id']}"
        status, _, body = product.call("GET", f"{path}/events?wait_s=5", key=key)
        assert [event["id"] for event in body["results"]] == [published[2]["id"]]
        assert product.call("POST", f"{path}/ack", {"ids": [published[2]["id"]]}, key)[0] == 200
        assert product.call("GET", "/quotes/ACME", key=key)[0] == 200
    eventually(lambda: product.call(*change, headers=operator)[0] == 200)
