"""A disk that fills up under the event store: what is published is refused, what is there can be read, and it heals."""

import subprocess

import pytest

from tests.product import Product, eventually

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("product")]

BIG = "x" * 200_000


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("full") / "var"
    store = data_dir / "nats"
    store.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", store], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        running = Product(data_dir, "--no-demo", DRAIN_S="1")
        yield running
        running.stop()
    finally:
        subprocess.run(["umount", "-l", store], check=True)


@pytest.fixture(scope="module")
def key(product):
    product.admin("POST", "tiers/", {"name": "roomy", "limits": []})
    product.admin("POST", "consumers/", {"name": "tester", "tier": "roomy"})
    for number in range(5):  # each may keep 1 GiB, of which there is none
        product.admin("POST", "channels/", {"address": f"log/{number}"})
    made = product.admin("POST", "consumers/tester/keys", {"scopes": ["publish:*", "subscribe:*"]})
    for number in range(5):
        eventually(lambda at=number: publish(product, made["key"], "first", at) == 201)
    return made["key"]


def publish(product, key, data, at=0):
    return product.call("POST", f"/v1/channels/log/{at}/events", {"data": data}, key)[0]


def stored(product, key):
    """Return the first stored event."""
    status, _, body = product.call("GET", "/v1/channels/log/0/events?limit=3", key=key)
    assert status == 200, body
    return [event["data"]["data"] for event in body["results"]]


def subscribed(product, key):
    """Make a subscription; None while what answers for the rows is not back."""
    status, _, body = product.call("POST", "/v1/subscriptions", {"type": "pull", "channel": "log/0"}, key)
    assert status in (201, 503), body
    return body.get("id")


def test_a_full_disk_is_507_reads_go_on_and_room_is_enough_to_go_on(product, key):
    subscription = product.call("POST", "/v1/subscriptions", {"type": "pull", "channel": "log/0"}, key)[2]
    statuses = []
    while 507 not in statuses:
        statuses.append(publish(product, key, BIG))
        assert len(statuses) < 1000
    assert set(statuses) == {201, 507}
    assert publish(product, key, "small", at=1) == 507
    assert stored(product, key)[:2] == ["first", BIG]
    status, _, body = product.call("GET", f"/v1/subscriptions/{subscription['id']}/events?limit=2", key=key)
    assert (status, len(body["results"])) == (200, 2)
    subprocess.run(["mount", "-o", "remount,size=200m", product.data_dir / "nats"], check=True)
    eventually(lambda: publish(product, key, "again") == 201)


def test_what_others_write_until_nothing_is_left_is_mended_too(product, key):
    filler = product.data_dir / "nats" / "filler"
    before = product.reread()["processes"]["nats"]
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1M"], check=False, capture_output=True)
    eventually(lambda: publish(product, key, "none") == 507)
    assert stored(product, key)
    log = product.data_dir / "logs" / "nats.log"
    eventually(lambda: "no space left on device" in log.read_text(errors="replace"), 60)
    filler.unlink()
    # NATS itself would go on refusing what goes to a stream that met the end.
    eventually(lambda: product.reread()["processes"]["nats"] not in ([], before), 30)
    eventually(lambda: publish(product, key, "again") == 201, 30)
    id_ = eventually(lambda: subscribed(product, key), 30)
    assert publish(product, key, "for the reader") == 201
    path = f"/v1/subscriptions/{id_}/events?wait_s=5"
    assert [event["data"] for event in product.call("GET", path, key=key)[2]["results"]] == [{"data": "for the reader"}]
