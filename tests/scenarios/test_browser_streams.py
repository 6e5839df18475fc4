"""Streams in a real browser whose line is cut: its own `EventSource` with a resumable ticket, and static/apimgmt.js."""

import os
import signal
import threading
import time

import pytest

from tests.line import Line
from tests.product import ROOT, eventually

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("product")]

CHANNEL = "browser"
EVENT_SOURCE = """ticket => {
  window.received = [];
  window.source = new EventSource(`/v1/events?channel=browser&ticket=${ticket}`);
  source.onmessage = event => received.push(JSON.parse(event.data));
  return new Promise(open => { source.onopen = () => open(true); });
}"""
MODULE = """async () => {
  const { EventStream, StreamSocket, tickets } = await import("/static/apimgmt.js");
  const ticket = tickets("/v1/tickets", { headers: { "X-API-Key": KEY } });
  window.received = [];
  window.states = [];
  const isSocket = KIND === "StreamSocket";
  window.source = isSocket ? new StreamSocket("/v1/stream", { ticket })
    : new EventStream("/v1/events?channel=browser", { ticket });
  if (isSocket) source.subscribe("browser");
  source.addEventListener("state", event => states.push(event.detail));
  source.addEventListener("message", event => received.push(JSON.parse(event.data)));
  source.addEventListener("event", event => received.push(event.detail.data));
}"""


@pytest.fixture(scope="module", autouse=True)
def channel(product):
    product.admin("POST", "channels", {"address": CHANNEL})
    eventually(lambda: publish(product, 0) == 201)
    yield
    product.admin("DELETE", f"channels/{CHANNEL}")


@pytest.fixture
def key(product):
    made = product.admin("POST", "consumers/gold/keys", {"name": "browser", "scopes": [f"subscribe:{CHANNEL}"]})
    eventually(lambda: product.call("GET", "/v1/me", key=made["key"])[0] == 200)
    yield made
    product.admin("POST", f"keys/{made['id']}/revoke", {"reason": "test"})


@pytest.fixture
def line(product):
    line = Line(product.port)
    yield line
    line.close()


@pytest.fixture
def page(browser, line):
    """Return a page of the gateway's own, under its Content-Security-Policy, behind the line."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{line.port}/docs/")
    yield page
    page.close()


def publish(product, value):
    status, _, _ = product.call("POST", f"/v1/channels/{CHANNEL}/events", value, product.ready["keys"]["gold"])
    return status


def resumable(product, key):
    status, _, answer = product.call("POST", "/v1/tickets", {"resumable": True}, key["key"])
    assert status == 201
    return answer["ticket"]


class Numbers:
    """Publishes 1, 2, 3 … until it is stopped."""

    def __init__(self, product):
        self._product = product
        self._ends = threading.Event()
        self.last = 0
        self._publishing = threading.Thread(target=self._publish)

    def __enter__(self):
        self._publishing.start()
        return self

    def __exit__(self, *error):
        self._ends.set()
        self._publishing.join()

    def _publish(self):
        while not self._ends.wait(0.02):
            headers = {"Idempotency-Key": f"{id(self)}-{self.last + 1}"}
            try:
                status, _, _ = self._product.call(
                    "POST",
                    f"/v1/channels/{CHANNEL}/events",
                    self.last + 1,
                    self._product.ready["keys"]["gold"],
                    headers,
                )
            except OSError:
                continue  # the gateway is restarting
            self.last += status == 201


def passed(page, numbers):
    """Return once the page has an event that is published from now on."""
    wanted = numbers.last + 2
    page.wait_for_function("wanted => received.includes(wanted)", arg=wanted, timeout=40_000)


def assert_all_once(page, numbers):
    page.wait_for_function("last => received.includes(last)", arg=numbers.last, timeout=40_000)
    received = page.evaluate("received")
    assert received == list(range(received[0], numbers.last + 1)), "lost or doubled"


def open_module(page, kind, key):
    page.evaluate(MODULE.replace("KEY", repr(key["key"])).replace("KIND", repr(kind)))
    page.wait_for_function("() => source.state === 'open'", timeout=20_000)


def test_an_eventsource_whose_line_is_cut_loses_and_doubles_nothing(product, page, line, key):
    page.evaluate(EVENT_SOURCE, resumable(product, key))
    with Numbers(product) as numbers:
        passed(page, numbers)
        for interrupt in (line.cut, line.lose, line.cut):
            opened = line.opened
            interrupt()
            eventually(lambda opened=opened: line.opened > opened)
            passed(page, numbers)
    assert_all_once(page, numbers)
    assert page.evaluate("source.readyState") == 1
    open_ = product.admin("GET", f"connections/?state=open&channel={CHANNEL}")["results"]
    assert len(open_) <= 1, "one at a time"


@pytest.mark.parametrize("kind", ["EventStream", "StreamSocket"])
def test_the_library_loses_and_doubles_nothing_when_its_line_is_cut(product, page, line, key, kind):
    open_module(page, kind, key)
    with Numbers(product) as numbers:
        passed(page, numbers)
        for interrupt in (line.cut, line.lose):
            interrupt()
            passed(page, numbers)
    assert_all_once(page, numbers)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=["drained", "killed"])
def test_streams_survive_a_restart_of_the_gateway(product, browser, page, line, key, sent):
    page.evaluate(EVENT_SOURCE, resumable(product, key))
    other = browser.new_page()
    other.goto(f"http://127.0.0.1:{line.port}/docs/")
    open_module(other, "StreamSocket", key)
    with Numbers(product) as numbers:
        for each in (page, other):
            passed(each, numbers)
        before = product.reread()["processes"]["web"]
        for process in before:
            os.kill(process, sent)
        eventually(lambda: not set(product.reread()["processes"]["web"]) & set(before), 40)
        for each in (page, other):
            passed(each, numbers)
    for each in (page, other):
        assert_all_once(each, numbers)
    other.close()


def test_a_revoked_key_ends_an_eventsource_for_good(product, page, key):
    page.evaluate(EVENT_SOURCE, resumable(product, key))
    product.admin("POST", f"keys/{key['id']}/revoke", {"reason": "test"})
    page.wait_for_function("() => source.readyState === EventSource.CLOSED", timeout=20_000)


def test_the_older_of_two_pages_with_one_ticket_is_closed_and_stays_closed(product, browser, page, line, key):
    ticket = resumable(product, key)
    page.evaluate(EVENT_SOURCE, ticket)
    page.evaluate("source.addEventListener('error', event => { if (event.data) window.why = JSON.parse(event.data) })")
    other = browser.new_page()
    other.goto(f"http://127.0.0.1:{line.port}/docs/")
    other.evaluate(EVENT_SOURCE, ticket)
    page.wait_for_function("() => window.why?.reason === 'taken-over'", timeout=10_000)
    time.sleep(3)  # longer than the reconnection time of an EventSource
    assert page.evaluate("source.readyState") == 0
    assert other.evaluate("source.readyState") == 1
    other.close()


def test_the_library_is_small_and_needs_nothing(product):
    status, headers, body = product.call("GET", product.base_url + "/static/apimgmt.js")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/javascript")
    assert body == (ROOT / "static/apimgmt.js").read_bytes()
