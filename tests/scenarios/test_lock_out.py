"""What one client sends locks out nobody else: wrong passwords and wrong keys, behind a trusted proxy or not."""

import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request

import pytest
from websockets.sync.client import connect

from tests.product import Product

pytestmark = [pytest.mark.xdist_group("product"), pytest.mark.timeout(300)]
ATTACKER, OTHER = "203.0.113.1", "198.51.100.1"


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    product = Product(tmp_path_factory.mktemp("lock-out") / "var", TRUSTED_PROXIES="127.0.0.0/8")
    yield product
    assert product.stop() == 0


class Browser:
    """A browser without cookies, behind a proxy that reports its address."""

    def __init__(self, product: Product, ip: str) -> None:
        self._url = f"{product.admin_url}/admin/login/"
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), NoRedirects
        )
        self._opener.addheaders = [("X-Forwarded-For", f"192.0.2.200, {ip}")]

    def sign_in(self, username: str, password: str) -> int:
        with self._opener.open(self._url) as page:
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.read().decode())
        form = {"csrfmiddlewaretoken": token[1], "username": username, "password": password}
        try:
            with self._opener.open(self._url, urllib.parse.urlencode(form).encode()) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None


def test_wrong_passwords_lock_out_their_sender_alone(product):
    admin = product.ready["admin"]
    attacker = Browser(product, ATTACKER)
    assert 429 in (attacker.sign_in("admin", "wrong") for _ in range(21))
    assert Browser(product, OTHER).sign_in("admin", admin["password"]) == 302


def test_wrong_keys_lock_out_neither_keys_nor_tickets_of_the_same_address(product):
    headers = {"X-Forwarded-For": ATTACKER}
    assert 429 in (product.call("GET", "/v1/me", key="apim_wrong", headers=headers)[0] for _ in range(41))
    gold, free = product.ready["keys"]["gold"], product.ready["keys"]["free"]
    status, _, body = product.call("POST", "/v1/tickets", b"", gold, headers)
    assert status == 201
    assert product.call("GET", "/v1/me", key=free, headers=headers)[0] == 200
    with connect(
        f"{product.ws_url}/v1/stream", subprotocols=["bearer", body["ticket"]], additional_headers=headers
    ) as socket:
        assert json.loads(socket.recv())["type"] == "welcome"


def test_unknown_tokens_lock_out_no_valid_one(product):
    headers = {"Authorization": "Token wrong"}
    assert 429 in (product.call("GET", "/api/v1/tiers/", headers=headers)[0] for _ in range(41))
    assert product.admin("GET", "tiers/")["results"]
