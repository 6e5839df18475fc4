"""Two origins: nothing that an upstream answers on the data plane reads or changes what operators see."""

import contextlib
import http.server
import threading

import pytest
import websockets
import websockets.sync.client
import websockets.sync.server

from tests.product import eventually

pytestmark = pytest.mark.xdist_group("product")
COOKIES = ["sessionid=evil; Path=/", "__Host-csrftoken=evil; Path=/; Secure", "=sessionid=evil", "own=1"]
OPERATORS_PATHS = [
    "/",
    "/admin/",
    "/admin/login/",
    "/dashboards/",
    "/dashboards/live",
    "/api/v1/keys",
    "/metrics",
    "/portal/",
]
ATTACK = """<!doctype html><title>evil</title><iframe name="sink"></iframe><script>
const admin = new URLSearchParams(location.search).get("admin"), outcomes = {};
const made = {method: "POST", credentials: "include", body: '{"name": "stolen", "scopes": ["*"]}'};
const keys = admin + "/api/v1/consumers/gold/keys";
const json = {"Content-Type": "application/json"};
const attempts = {
  read: () => fetch(keys, {credentials: "include"}).then((answer) => answer.text()),
  readPage: () => fetch(admin + "/admin/", {credentials: "include"}).then((answer) => answer.text()),
  readQuietly: () => fetch(keys, {credentials: "include", mode: "no-cors"}).then((answer) => answer.text()),
  postJson: () => fetch(keys, {...made, headers: json}).then((answer) => answer.text()),
  postText: () => fetch(keys, {...made, mode: "no-cors"}).then((answer) => answer.text()),
  frame: () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.onload = () => resolve(frame.contentDocument ? frame.contentDocument.body.textContent : "");
    frame.src = admin + "/admin/";
    document.body.append(frame);
  }),
  form: () => new Promise((resolve) => {
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", target: "sink", enctype: "text/plain", action: keys});
    const field = document.createElement("input");
    Object.assign(field, {name: '{"name": "stolen", "scopes": ["*"], "x": "', value: '"}'});
    form.append(field);
    document.body.append(form);
    document.querySelector("[name=sink]").onload = () => resolve("");
    form.submit();
  }),
  signOut: () => fetch(admin + "/dashboards/logout", {...made, mode: "no-cors"}).then(() => ""),
};
(async () => {
  for (const [name, attempt] of Object.entries(attempts)) {
    outcomes[name] = await attempt().catch(() => "");
  }
  window.outcomes = outcomes;
})();
</script>"""
REGISTER = """navigator.serviceWorker.register("/evil/worker.js", {scope: "/"}).then(
    () => "registered", () => "refused")"""
WORKER = """self.addEventListener("fetch", (event) => event.respondWith(new Response("kept")));"""


class Attacker(http.server.BaseHTTPRequestHandler):
    """An upstream that sets cookies, widens its worker's scope, and serves a page of attacks."""

    protocol_version = "HTTP/1.1"
    received: list = []  # noqa: RUF012 - filled by all instances

    def do_GET(self):
        self.received.append(dict(self.headers))
        type_, body = {
            "/page": ("text/html", ATTACK),
            "/worker.js": ("text/javascript", WORKER),
            "/events": ("text/event-stream", "data: 1\n\n"),
        }[self.path.partition("?")[0]]
        self.send_response(200)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Service-Worker-Allowed", "/")
        for cookie in COOKIES:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()


def with_cookies(connection, request, response):
    for cookie in COOKIES:
        response.headers["Set-Cookie"] = cookie
    response.headers["Service-Worker-Allowed"] = "/"


@pytest.fixture(scope="module")
def evil(product):
    """Serve routes to an attacker's upstreams; returns a key that may call them."""
    made = product.admin("POST", "consumers/gold/keys", {"name": "evil", "scopes": ["*"]})
    socket_server = websockets.sync.server.serve(
        lambda socket: socket.send("1"), "127.0.0.1", 0, process_response=with_cookies
    )
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Attacker)) as server, serving(socket_server):
        url = f"http://127.0.0.1:{server.server_address[1]}"
        ws_url = "ws://{}:{}".format(*socket_server.socket.getsockname())
        routes = [
            ("evil", "/evil/{rest...}", "http", url + "/{rest}"),
            ("evil-api", "/api/{rest...}", "http", url + "/{rest}"),
            ("evil-events", "/evil-events", "sse", url + "/events"),
            ("evil-socket", "/evil-socket", "websocket", ws_url + "/"),
        ]
        for name, path, protocol, target in routes:
            handler = {"type": "upstream", "url": target}
            product.admin("POST", "routes", {"name": name, "path": path, "protocol": protocol, "handler": handler})
        eventually(lambda: product.call("GET", "/evil/worker.js", key=made["key"])[0] == 200)
        yield made["key"]
        for name, *_ in routes:
            product.admin("DELETE", f"routes/{name}")
        product.admin("DELETE", f"keys/{made['id']}")
        server.server_close()


def ticket(product, key):
    return product.call("POST", "/v1/tickets", {}, key)[2]["ticket"]


def test_the_data_plane_serves_no_page_of_the_operators(product):
    for path in OPERATORS_PATHS:
        status, headers, reply = product.call("GET", product.base_url + path)
        assert (status, reply["reason"]) == (404, "not-found"), path
        assert headers["content-type"] == "application/problem+json"


def test_the_public_pages_have_no_cookie_and_know_no_session(product):
    admin = product.ready["admin"]
    for path in ("/docs/", "/docs/refusals", "/docs/reference/openapi", "/docs/nothing"):
        headers = {"Cookie": "sessionid=x; csrftoken=y", "Authorization": f"Token {admin['token']}"}
        _, headers, page = product.call("GET", product.base_url + path, headers=headers)
        assert "set-cookie" not in headers
        assert headers["x-content-type-options"] == "nosniff"
        assert b"/dashboards/login" not in page
        assert product.admin_url.encode() not in page


def test_a_route_may_take_a_path_that_operators_use_elsewhere(product, evil):
    status, _, body = product.call("GET", product.base_url + "/api/worker.js", key=evil)
    assert (status, body.decode()) == (200, WORKER)
    assert product.call("GET", "/api/v1/keys", key=evil)[0] == 401


def test_no_upstream_sets_or_receives_an_operators_cookie(product, evil):
    headers = {"X-API-Key": evil, "Cookie": "sessionid=s; own=1; __Host-csrftoken=c", "Connection": "close"}
    for path in ("/evil/worker.js", "/evil-events"):
        Attacker.received.clear()
        _, answered, _ = product.call("GET", path, headers=headers)
        assert answered["set-cookie"] == "own=1", path
        assert "service-worker-allowed" not in answered, path
        assert [received["cookie"] for received in Attacker.received] == ["own=1"], path
    with websockets.sync.client.connect(
        product.ws_url + "/evil-socket", additional_headers={"X-API-Key": evil}
    ) as opened:
        assert opened.recv(5) == "1"
        assert opened.response.headers.get_all("set-cookie") == ["own=1"]
        assert "service-worker-allowed" not in opened.response.headers


def test_answers_of_the_gateway_are_not_sniffed(product):
    gold = product.ready["keys"]["gold"]
    for path, key in (("/v1/me", gold), ("/v1/me", None), ("/nowhere", gold), ("/v1/openapi.json", gold)):
        assert product.call("GET", path, key=key)[1]["x-content-type-options"] == "nosniff", path
    for path in ("/admin/login/", "/api/v1/keys", "/metrics", "/healthz", "/static/css/app.css"):
        assert product.call("GET", path)[1]["x-content-type-options"] == "nosniff", path


def test_a_ticket_opens_no_plain_request(product, evil):
    shown = ticket(product, evil)
    for path in ("/v1/me", "/evil/page", "/v1/openapi.json", "/v1/channels/trades/events"):
        status, _, reply = product.call("GET", f"{path}?ticket={shown}")
        assert (status, reply["reason"]) == (401, "unauthenticated"), path
    assert product.call("GET", "/v1/me", headers={"Authorization": f"Bearer {shown}"})[0] == 401
    assert product.call("GET", f"/evil-events?a=1&ticket={shown}")[0] == 200  # none of these has used it up


@pytest.mark.parametrize(
    "destination", ["document", "iframe", "frame", "embed", "object", "serviceworker", "Document", "worker"]
)
def test_a_ticket_opens_no_page_frame_or_worker(product, evil, destination):
    shown = ticket(product, evil)
    headers = {"Sec-Fetch-Dest": destination}
    status, _, reply = product.call("GET", f"/evil-events?ticket={shown}", headers=headers)
    assert (status, reply["reason"]) == (403, "forbidden")
    assert product.call("GET", f"/evil-events?ticket={shown}", headers={"Sec-Fetch-Dest": "empty"})[0] == 200


def test_another_origin_changes_nothing_on_the_operators(product):
    token = {"Authorization": f"Token {product.ready['admin']['token']}"}
    for site in ("same-site", "cross-site", "Cross-Site", "same-origin, cross-site"):
        for path in ("/api/v1/tiers", "/admin/login/", "/dashboards/login"):
            assert product.call("POST", path, {"name": "ridden"}, headers=token | {"Sec-Fetch-Site": site})[0] == 403, (
                site
            )
    assert product.call("GET", "/api/v1/tiers/ridden", headers=token)[0] == 404


def keys_of_gold(product):
    return {key["id"] for key in product.admin("GET", "consumers/gold/keys")["results"]}


@pytest.mark.services
def test_an_operator_who_opens_an_upstreams_page_loses_nothing(product, evil, browser):
    """The page runs on the data plane's origin, in a real browser in which the operator is signed in."""
    keys_before = keys_of_gold(product)
    context = browser.new_context()
    page = context.new_page()
    page.goto(product.admin_url + "/dashboards/login")
    page.fill("[name=username]", product.ready["admin"]["username"])
    page.fill("[name=password]", product.ready["admin"]["password"])
    page.click("main button[type=submit]")
    page.wait_for_url("**/dashboards/")
    cookies = {cookie["name"]: cookie for cookie in context.cookies()}
    assert set(cookies) == {"sessionid", "csrftoken", "apimgmt_device"}
    assert all(cookie["httpOnly"] and cookie["sameSite"] == "Lax" for cookie in cookies.values())

    for route in ("evil/page", "evil-events"):  # the plain link that shows an upstream's page
        answer = page.goto(f"{product.base_url}/{route}?ticket={ticket(product, evil)}&admin={product.admin_url}")
        assert answer.status in (401, 403)

    def show_key(route):
        route.continue_(headers=route.request.headers | {"x-api-key": evil})

    context.route(f"{product.base_url}/evil/**", show_key)  # as if a page got there all the same
    posted = []
    page.on("response", lambda answer: posted.append(answer.status) if answer.request.method == "POST" else None)
    page.goto(f"{product.base_url}/evil/page?admin={product.admin_url}")
    page.wait_for_function("window.outcomes !== undefined")
    outcomes = page.evaluate("window.outcomes")
    assert outcomes == dict.fromkeys(outcomes, ""), "something was readable"
    assert set(posted) == {403}
    assert page.evaluate(REGISTER) == "refused"

    assert {cookie["name"]: cookie["value"] for cookie in context.cookies() if cookie["name"] in cookies} == {
        name: cookie["value"] for name, cookie in cookies.items()
    }
    page.goto(product.admin_url + "/admin/")
    assert page.url == product.admin_url + "/admin/"  # still signed in, and not by an attacker's worker
    context.close()
    assert keys_of_gold(product) == keys_before
