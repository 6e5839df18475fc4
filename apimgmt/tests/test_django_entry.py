"""What Django gets of a request: the client's own address and scheme, and a path that it can match."""

from ipaddress import ip_network

import orjson
import pytest

from apimgmt import django_entry

PROXY = "10.0.0.1"


@pytest.fixture(autouse=True)
def _one_trusted_proxy(settings):
    settings.TRUSTED_PROXIES = (ip_network("10.0.0.0/8"),)


async def served(path="/admin/", client=(PROXY, 4711), headers=()):
    """Serve a request, and return the scope that the application got, or None, and the messages of the answer."""
    scopes, sent = [], []

    async def application(scope, receive, send):
        scopes.append(scope)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "client": client, "scheme": "http", "headers": list(headers)}
    await django_entry.serve(application, scope, receive, send)
    return (scopes[0] if scopes else None), sent


REPORTS = [
    (b"x-forwarded-for", b"203.0.113.9, 198.51.100.7"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"evil.test"),
    (b"x-forwarded-port", b"1"),
    (b"forwarded", b"for=203.0.113.9;host=evil.test;proto=https"),
    (b"x-real-ip", b"203.0.113.9"),
]


async def test_a_trusted_proxy_reports_the_address_and_the_scheme_of_its_client():
    scope, _ = await served(headers=[(b"host", b"gateway.test"), *REPORTS])
    assert (scope["client"], scope["scheme"]) == (("198.51.100.7", 0), "https")
    assert scope["headers"] == [(b"host", b"gateway.test")]


async def test_nobody_else_reports_anything():
    scope, _ = await served(client=("192.0.2.1", 4711), headers=[(b"host", b"gateway.test"), *REPORTS])
    assert (scope["client"], scope["scheme"]) == (("192.0.2.1", 4711), "http")
    assert scope["headers"] == [(b"host", b"gateway.test")]


async def test_a_client_without_an_address_is_served():
    scope, _ = await served(client=None)
    assert scope["client"] == ("", 0)


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize("path", ["/api/v1/tiers/a{}", "/api/v1/tiers/a{}b/", "/admin/{}", "/{}", "/docs/{}/"])
async def test_a_control_character_in_a_path_is_problem_details(path, character):
    scope, sent = await served(path.format(character))
    assert scope is None
    assert sent[0]["status"] == 400
    assert dict(sent[0]["headers"])[b"content-type"] == b"application/problem+json"
    assert orjson.loads(sent[1]["body"])["reason"] == "invalid-request"
