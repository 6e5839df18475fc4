import subprocess
import sys

import pytest

from tests.product import ROOT, Product, eventually, strangers_environment

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("up")]
APPS_WITH_TABLES = ("operators", "audit", "consumers", "keys", "routes", "events", "jobs", "analytics", "configuration")


def test_it_runs_on_engines_of_ones_own(tmp_path, postgres_url, own_redis_url, nats_url):
    """The same code on the other column: PostgreSQL, Redis and NATS that URLs name."""
    settings = {"DATABASE_URL": postgres_url, "REDIS_URL": own_redis_url, "NATS_URL": nats_url}
    product = Product(tmp_path / "var", **settings)
    try:
        assert product.ready["processes"]["redis"] == product.ready["processes"]["nats"] == []
        assert not (tmp_path / "var" / "apimgmt.sqlite3").exists()
        gold = product.ready["keys"]["gold"]
        assert product.call("GET", "/readyz")[2]["engines"] == {"database": "ok", "redis": "ok", "nats": "ok"}
        assert product.call("GET", "/quotes/ACME", key=gold)[0] == 200
        assert product.call("POST", "/v1/channels/trades/events", {"price": 1}, key=gold)[0] == 201
        status, _, job = product.call("POST", "/reports", {"type": "daily"}, key=gold)
        assert status == 202
        eventually(lambda: product.call("GET", job["statusUrl"], key=gold)[2]["state"] == "completed", 60)
        product.admin("PATCH", "consumers/gold", {"display_name": "Ours"})
        assert product.admin("GET", "audit?kind=consumer")["results"]
    finally:
        assert product.stop() == 0
    again = Product(tmp_path / "var", **settings)
    try:
        assert again.ready["keys"]["gold"] == gold
        assert again.admin("GET", "consumers/gold")["display_name"] == "Ours"
    finally:
        again.stop()


@pytest.mark.timeout(1300)
def test_what_is_kept_in_tables_is_kept_in_postgresql_too(postgres_url):
    """The tests of every app that has tables, once more, on PostgreSQL."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *APPS_WITH_TABLES, "-m", "not services", "-n", "0"],
        cwd=ROOT,
        env=strangers_environment() | {"TESTS_DATABASE_URL": postgres_url},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
