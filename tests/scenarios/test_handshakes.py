"""Who may come in: cookies, keys and tickets in the wrong place, at doors that are not theirs."""

import http.client
import http.cookies
import json
import re
import urllib.parse

import pytest
import websockets
import websockets.sync.client

from tests.product import eventually

pytestmark = pytest.mark.xdist_group("product")
FOREIGN = ["https://evil.example", "null", None]
SIGNED_IN = ["/admin/", "/dashboards/"]


@pytest.fixture(scope="module")
def cookie(product):
    """Return the cookies of a signed-in operator's browser."""
    caller = http.client.HTTPConnection("127.0.0.1", product.admin_port, timeout=20)
    caller.request("GET", "/admin/login/")
    answer = caller.getresponse()
    csrf = http.cookies.SimpleCookie(answer.headers["set-cookie"])["csrftoken"].value
    form = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', answer.read().decode())[1]
    admin = product.ready["admin"]
    body = {
        "csrfmiddlewaretoken": form,
        "username": admin["username"],
        "password": admin["password"],
        "next": "/admin/",
    }
    headers = {
        "Cookie": f"csrftoken={csrf}", "Referer": product.admin_url + "/admin/login/",
        "Content-Type": "application/x-www-form-urlencoded",
    }  # fmt: skip
    caller.request("POST", "/admin/login/", urllib.parse.urlencode(body), headers)
    answer = caller.getresponse()
    assert answer.status == 302
    found = http.cookies.SimpleCookie()
    for value in answer.headers.get_all("set-cookie"):
        found.load(value)
    caller.close()
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in found.items())
    for path in SIGNED_IN:
        assert product.call("GET", path, headers={"Cookie": cookie})[0] == 200
    return cookie


def refused_socket(product, path, **headers):
    """Ask for a WebSocket that must not become one; gives status and headers of the answer."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        websockets.sync.client.connect(product.ws_url + path, additional_headers=headers).close()
    return caught.value.response.status_code, caught.value.response.headers


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("path", ["/v1/stream", "/ws/market-data", "/dashboards/live", "/admin/"])
def test_a_cookie_opens_no_socket_wherever_its_page_is_from(product, cookie, path, origin):
    """Nothing of ours goes by a cookie on a socket; a foreign page hears of its origin before `101`."""
    headers = {"Cookie": cookie} | ({} if origin is None else {"Origin": origin})
    status, _ = refused_socket(product, path, **headers)
    is_served = path in ("/v1/stream", "/ws/market-data")
    assert status == (404 if not is_served else 401 if origin is None else 403)


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("path", ["/v1/me", "/v1/events?channel=trades", "/quotes/ACME", "/v1/channels/trades/events"])
def test_an_operators_session_is_nobody_on_the_data_plane(product, cookie, path, origin):
    headers = {"Cookie": cookie} | ({} if origin is None else {"Origin": origin})
    status, _, problem = product.call("GET", path, headers=headers)
    assert (status, problem["reason"]) == (401, "unauthenticated")


def test_an_operators_token_is_nobody_on_the_data_plane(product):
    token = product.ready["admin"]["token"]
    for authorization in (f"Token {token}", f"Bearer {token}"):
        assert product.call("GET", "/v1/me", headers={"Authorization": authorization})[0] == 401
    assert refused_socket(product, "/v1/stream", **{"X-API-Key": token})[0] == 401


@pytest.mark.parametrize("path", ["keys", "consumers", "connections", "dead-letters", "audit"])
def test_a_consumers_key_is_nobody_on_the_management_api(product, path):
    key = product.ready["keys"]["gold"]
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Token {key}"}, {"X-API-Key": key}):
        status, _, problem = product.call("GET", f"/api/v1/{path}/", headers=headers)
        assert status == 401, problem


def test_the_management_api_takes_no_change_by_a_foreign_pages_cookie(product, cookie):
    for origin in ("https://evil.example", "null"):
        headers = {"Cookie": cookie, "Origin": origin}
        status, _, _ = product.call("POST", "/api/v1/tiers/", {"name": "ridden"}, headers=headers)
        assert status in (401, 403)
    assert product.call("GET", "/api/v1/tiers/ridden", headers={"Cookie": cookie})[0] != 200


def test_a_key_in_an_address_opens_nothing_and_is_in_no_log(product):
    made = product.admin("POST", "consumers/gold/keys", {"scopes": ["*"]})
    key = made["key"]
    eventually(lambda: product.call("GET", "/v1/me", key=key)[0] == 200)
    for path in ("/quotes/ACME?key=", "/v1/events?channel=trades&api_key=", "/v1/me?x=1&apikey="):
        status, headers, problem = product.call("GET", path + key)
        assert (status, headers["referrer-policy"]) == (401, "no-referrer"), problem
        assert key not in json.dumps(problem)
    assert key not in json.dumps(product.call("GET", f"/nowhere?k={key}")[2])
    status, headers = refused_socket(product, f"/v1/stream?token={key}")
    assert (status, headers["referrer-policy"]) == (401, "no-referrer")
    product.call("GET", f"/api/v1/tiers?key={key}")
    product.call("GET", f"/admin/?key={key}")
    secret = key.rsplit("_", 1)[1]
    for log in (product.data_dir / "logs").iterdir():
        assert secret not in log.read_text(errors="replace"), log.name
    assert secret not in product.printed()


def test_a_key_is_no_ticket_even_where_it_was_shown_before(product):
    key = product.ready["keys"]["gold"]
    for _ in range(4):
        assert product.call("GET", "/v1/me", key=key)[0] == 200
    status, headers, _ = product.call("GET", f"/v1/me?ticket={key}")
    assert (status, headers["referrer-policy"]) == (401, "no-referrer")
    assert refused_socket(product, f"/v1/stream?ticket={key}")[0] == 401


@pytest.mark.parametrize("protocol", ["query", "subprotocol"])
def test_a_ticket_opens_one_socket(product, protocol):
    key = product.ready["keys"]["gold"]
    ticket = product.call("POST", "/v1/tickets", {}, key)[2]["ticket"]
    url, offered = product.ws_url + "/v1/stream", None
    if protocol == "query":
        url += f"?ticket={ticket}"
    else:
        offered = ["bearer", ticket]
    with websockets.sync.client.connect(url, subprotocols=offered) as socket:
        assert json.loads(socket.recv(5))["type"] == "welcome"
        assert socket.subprotocol == (None if offered is None else "bearer")
        with pytest.raises(websockets.InvalidStatus) as caught:
            websockets.sync.client.connect(url, subprotocols=offered).close()
        assert caught.value.response.status_code == 401
    assert product.call("GET", f"/v1/me?ticket={ticket}")[0] == 401
    assert ticket not in "".join(log.read_text(errors="replace") for log in (product.data_dir / "logs").iterdir())


def test_a_page_that_a_key_does_not_allow_is_refused_before_101(product):
    key = product.admin("POST", "consumers/gold/keys", {"scopes": ["*"], "allowed_origins": ["https://app.example"]})[
        "key"
    ]
    eventually(lambda: product.call("GET", "/v1/me", key=key)[0] == 200)
    for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
        assert refused_socket(product, "/v1/stream", **{"X-API-Key": key, "Origin": origin})[0] == 403
        assert product.call("GET", "/v1/events?channel=trades", key=key, headers={"Origin": origin})[0] == 403
    headers = {"X-API-Key": key, "Origin": "https://app.example"}
    with websockets.sync.client.connect(product.ws_url + "/v1/stream", additional_headers=headers) as socket:
        assert json.loads(socket.recv(5))["type"] == "welcome"
