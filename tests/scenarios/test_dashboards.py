"""The dashboards in a real browser, under their own Content-Security-Policy."""

import contextlib
import json
import threading

import pytest
import websockets
import websockets.sync.client

from tests.product import eventually

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("product")]

PAGES = ("/", "/docs/", "/docs/refusals", "/dashboards/", "/dashboards/connections", "/dashboards/usage?period=hour")


@pytest.fixture
def page(browser, product):
    """Return a page of a signed-in operator; any console error of the browser fails the test."""
    complaints = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda body: complaints.append(body.text) if body.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(product.admin_url + "/dashboards/login")
    page.fill("[name=username]", product.ready["admin"]["username"])
    page.fill("[name=password]", product.ready["admin"]["password"])
    page.click("main button[type=submit]")
    page.wait_for_url("**/dashboards/")
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def traffic(product):
    """Call with a key and without one until the test ends."""
    ends = threading.Event()

    def call():
        while not ends.wait(0.05):
            product.call("GET", "/quotes/ACME", key=product.ready["keys"]["gold"])
            product.call("GET", "/quotes/ACME")

    calling = threading.Thread(target=call)
    calling.start()
    yield
    ends.set()
    calling.join()


@contextlib.contextmanager
def listening(product):
    """Hold a socket of the gold key open."""
    headers = {"X-API-Key": product.ready["keys"]["gold"]}
    with websockets.sync.client.connect(product.ws_url + "/v1/stream", additional_headers=headers) as connection:
        yield connection


def read_to_its_end(connection):
    while True:
        connection.recv(timeout=10)


def newest_closed(page):
    return page.evaluate("document.querySelector('#closed tr')?.dataset.id")


def shown(page, selector):
    return page.text_content(selector)


def test_the_overview_changes_without_reload(page, product, traffic):
    page.evaluate("window.isTheSame = true")
    page.wait_for_selector("#pulse.on")
    eventually(lambda: shown(page, "#calls") not in ("–", "0"))
    page.wait_for_selector("#consumers [data-name=gold]")
    page.wait_for_selector("#targets [data-name=quotes]")
    refusal = page.wait_for_selector("#refused [data-name=credential-missing] a")
    assert refusal.text_content() == "No key sent"
    assert refusal.get_attribute("href") == "/docs/refusals#unauthenticated"
    before = int(shown(page, "#open"))
    closed = newest_closed(page)
    with listening(product):
        eventually(lambda: int(shown(page, "#open")) > before)
    eventually(lambda: newest_closed(page) != closed)
    assert "/v1/stream" in shown(page, "#closed tr")
    assert page.evaluate("window.isTheSame")


def test_an_operator_closes_a_connection_and_sees_it_go(page, product):
    with listening(product) as connection:
        # Other tests' connections of this key may still be in the ledger.
        disconnect = f"#ledger form[action*='{json.loads(connection.recv())['connection']}'] button"
        page.goto(product.admin_url + "/dashboards/connections?protocol=websocket&consumer=gold&channel=/v1/stream")
        page.click(disconnect)
        page.wait_for_selector(".notice")
        page.wait_for_selector(disconnect, state="detached")
        with pytest.raises(websockets.ConnectionClosed):
            read_to_its_end(connection)
    page.goto(product.admin_url + "/dashboards/connections?state=closed&protocol=websocket")
    assert "gold" in shown(page, "#ledger tbody tr")


def test_empty_fields_of_a_form_of_filters_are_left_out(page, product):
    page.goto(product.admin_url + "/dashboards/dead-letters")
    page.fill("[name=channel]", "trades")
    page.click("form.filters button[type=submit]")
    page.wait_for_url("**/dashboards/dead-letters?channel=trades")
    page.fill("[name=channel]", "")
    page.click("form.filters button[type=submit]")
    page.wait_for_url(lambda url: "channel" not in url)
    assert page.query_selector(".notice.error") is None


def test_the_question_before_a_bulk_action_is_answered_in_the_browser(page, product):
    # Other tests of this product leave dead letters in other channels.
    of_sensors = "channel=sensors/%7BdeviceId%7D/temperature"
    for letter in product.admin("GET", f"dead-letters/?{of_sensors}")["results"]:
        product.admin("DELETE", f"dead-letters/{letter['id']}")
    page.goto(product.admin_url + f"/dashboards/dead-letters/discard?{of_sensors}")
    assert "Discard 0 dead letters?" in shown(page, "h1")
    product.call("POST", "/v1/channels/sensors/a/temperature/events", {"value": "warm"}, product.ready["keys"]["gold"])
    eventually(lambda: product.admin("GET", f"dead-letters/?{of_sensors}")["results"])
    page.reload()
    assert "Discard 1 dead letter?" in shown(page, "h1")
    page.click("main form button[type=submit]")
    page.wait_for_url("**/dashboards/dead-letters/jobs/*")
    page.wait_for_selector(".head :text('completed')")
    assert product.admin("GET", f"dead-letters/?{of_sensors}")["results"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_narrow_screen_and_break_no_policy(page, product, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    for path in PAGES:
        page.goto(product.admin_url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


def test_the_theme_that_was_chosen_is_kept(page, product):
    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.emulate_media(color_scheme="light")
    light = ground()
    page.click("[data-theme-toggle]")
    eventually(lambda: ground() != light)
    page.goto(product.admin_url + "/docs/")
    assert ground() != light
