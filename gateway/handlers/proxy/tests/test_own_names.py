"""What the head of a response says of the upstream, in the caller's names."""

import pytest

from gateway.handlers.proxy.own_names import OwnNames
from gateway.handlers.proxy.path_map import PathMap, to_public
from gateway.upstream.origin import Origin
from gateway.wire.forwarded import PublicName


def names(public="/app", upstream="", *, host="up.internal:9000", port=9000):
    public_name = PublicName.of("https", "api.example", "", public)
    return OwnNames(Origin("up.internal", port, is_tls=False), host, public_name, upstream)


@pytest.mark.parametrize(
    ("public_path", "upstream_path", "public", "upstream"),
    [
        ("/app/{rest...}", "/{rest}", "/app", ""),
        ("/app/{rest...}", "/base/{rest...}", "/app", "/base"),
        ("/app/{rest...}", "/app/{rest}", "", ""),
        ("/{rest...}", "/{rest}", "", ""),
        ("/quotes", "/v2/quotes", "", "/v2"),
        ("/items/{id}", "/api/items/{id}", "", "/api"),
        ("/old/{id}", "/new/{id}.json", "/old/7", "/new/7.json"),
        ("/t/{tenant}/{rest...}", "/{rest}", "/t/a%20b", ""),
        ("/echo", "/", "/echo", ""),
        ("/", "/", "", ""),
        ("/", "/home", "", "/home"),
    ],
)
def test_paths_correspond_but_for_their_beginnings(public_path, upstream_path, public, upstream):
    parameters = {"rest": "x/y", "id": "7", "tenant": "a b"}
    assert PathMap.of(public_path, upstream_path).for_call(parameters) == (public, upstream)
    assert PathMap.of(public_path, upstream_path).for_call(parameters, "/outer")[0] == "/outer" + public


@pytest.mark.parametrize(
    ("path", "public", "upstream", "expected"),
    [
        ("/login", "/app", "", "/app/login"),
        ("/", "/app", "", "/app/"),
        ("/app/login", "/app", "", "/app/login"),
        ("/apple", "/app", "", "/app/apple"),
        ("/base/x", "/app", "/base", "/app/x"),
        ("/base", "", "/base", "/"),
        ("/based", "/app", "/base", "/based"),
        ("/other", "/app", "/base", "/other"),
    ],
)
def test_a_path_of_the_upstream_is_the_callers(path, public, upstream, expected):
    assert to_public(path, public, upstream) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://up.internal:9000/items/?a=1#b", "https://api.example/app/items/?a=1#b"),
        ("http://up.internal/items", "https://api.example/app/items"),
        ("HTTP://UP.internal:9000/items", "https://api.example/app/items"),
        ("https://up.internal/items", "https://api.example/app/items"),
        ("//up.internal:9000/items", "https://api.example/app/items"),
        ("http://user:pw@up.internal:9000/items", "https://api.example/app/items"),
        ("ws://up.internal:9000/items", "wss://api.example/app/items"),
        ("wss://up.internal:9000/items", "wss://api.example/app/items"),
        ("http://up.internal:9000", "https://api.example/app/"),
        ("http://up.internal:9000?a=1", "https://api.example/app/?a=1"),
        ("/login?next=/x", "/app/login?next=/x"),
        ("/login#top?", "/app/login#top?"),
        ("http://up.internal:9001/items", None),
        ("http://up.internal.evil.test/items", None),
        ("http://up.internal:9000@evil.test/items", None),
        ("http://other.example/up.internal:9000/", None),
        ("https://api.example/x", None),
        ("ftp://up.internal/x", None),
        ("mailto:a@up.internal", None),
        ("items", None),
        ("?page=2", None),
        ("../x", None),
        ("", None),
        ("/\\evil.test", None),
    ],
)
def test_a_url_that_names_the_upstream_is_rewritten_and_no_other(url, expected):
    """PrefectHQ/prefect#22405, Kludex/uvicorn#965"""
    expected = url if expected is None else expected
    rewritten = dict(names().rewritten([(b"location", url.encode()), (b"content-location", url.encode())]))
    assert rewritten == {b"location": expected.encode(), b"content-location": expected.encode()}


def test_with_the_callers_host_an_upstream_names_itself_by_it():
    own = names(host="api.example")
    assert own.url("https://api.example/items/") == "https://api.example/app/items/"
    assert own.url("https://api.example/app/items/") == "https://api.example/app/items/"


def test_without_a_host_of_the_caller_a_url_becomes_a_path():
    public = PublicName.of("http", "", "", "/app")
    own = OwnNames(Origin("up.internal", 80, is_tls=False), "up.internal", public, "")
    assert own.url("http://up.internal/x") == "/app/x"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"refresh", "5; url=http://up.internal:9000/x", "5; url=https://api.example/app/x"),
        (b"refresh", "0;URL='/x'", "0;URL='/app/x'"),
        (b"refresh", "5", "5"),
        (b"link", '</a>; rel="next", <http://up.internal:9000/b?c=,>; rel=last, <https://x.example/>; rel=me',
         '</app/a>; rel="next", <https://api.example/app/b?c=,>; rel=last, <https://x.example/>; rel=me'),
        (b"set-cookie", "a=1; Domain=up.internal; Path=/; Secure", "a=1; Path=/app; Secure"),
        (b"set-cookie", "a=1; domain=.UP.internal; path=/x", "a=1; path=/app/x"),
        (b"set-cookie", "a=1; Domain=internal", "a=1"),
        (b"set-cookie", "a=1; Domain=api.example; Path=/app/x", "a=1; Domain=api.example; Path=/app/x"),
        (b"set-cookie", "a=1; Domain=example", "a=1; Domain=example"),
        (b"set-cookie", "a=1; Domain=other.test; HttpOnly", "a=1; Domain=other.test; HttpOnly"),
        (b"set-cookie", "__Host-a=1; Path=/; Secure", "__Host-a=1; Path=/; Secure"),
        (b"set-cookie", "a=Domain=up.internal", "a=Domain=up.internal"),
        (b"x-other", "http://up.internal:9000/", "http://up.internal:9000/"),
    ],
)  # fmt: skip
def test_other_headers_that_a_client_follows_are_rewritten(name, value, expected):
    assert names().rewritten([(name, value.encode())]) == [(name, expected.encode())]


@pytest.mark.parametrize(
    ("path", "expected"), [("/", "/app"), ("/base", "/app"), ("/base/x", "/app/x"), ("/elsewhere", "/elsewhere")]
)
def test_a_cookie_for_all_of_the_upstream_is_for_all_of_the_route(path, expected):
    own = names("/app", "/base")
    rewritten = own.rewritten([(b"set-cookie", f"a=1; Path={path}".encode())])
    assert rewritten == [(b"set-cookie", f"a=1; Path={expected}".encode())]
