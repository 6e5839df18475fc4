"""Cookies and headers that no upstream may receive or set."""

import pytest

from gateway.handlers.proxy.heads import cookies_of, response_headers

VIA = b"1.1 gateway"


@pytest.mark.parametrize(
    "name", ["sessionid", "csrftoken", "apimgmt_device", "__Host-sessionid", "__Host-apimgmt_device"]
)
@pytest.mark.parametrize("written", ["{}=x", " {} =x; Path=/", "={}=x", " = {}=x", "\t{}\t=x", "{}", "{}=; Max-Age=0"])
def test_no_upstream_sets_a_cookie_of_the_operators(name, written):
    for spelling in (name, name.upper(), name.lower()):
        headers = [(b"set-cookie", written.format(spelling).encode()), (b"set-cookie", b"own=1; Path=/")]
        assert [
            value for name, value in response_headers(200, headers, limits=[], via=VIA) if name == b"set-cookie"
        ] == [b"own=1; Path=/"]


@pytest.mark.parametrize("cookie", [b"mysessionid=1", b"sessionid2=1", b"a=sessionid=1", b"session=sessionid; Path=/"])
def test_other_cookies_of_an_upstream_pass(cookie):
    assert (b"set-cookie", cookie) in response_headers(200, [(b"set-cookie", cookie)], limits=[], via=VIA)


@pytest.mark.parametrize(
    ("cookies", "passed"),
    [
        (b"a=1; b=2", b"a=1; b=2"),
        (b"a=1; sessionid=x; b=2", b"a=1; b=2"),
        (b"__Host-sessionid=x; __Host-csrftoken=y", b""),
        (b"a=1; Apimgmt_Device=x; b=2", b"a=1; b=2"),
        (b"__host-SESSIONID=x;a=1", b"a=1"),
        (b"=sessionid=x; a=1; CSRFtoken=y", b"a=1"),
    ],
)
def test_no_upstream_receives_a_cookie_of_the_operators(cookies, passed):
    assert cookies_of(cookies) == passed


def test_no_upstream_widens_the_scope_of_a_service_worker():
    names = [
        name
        for name, _ in response_headers(200, [(b"service-worker-allowed", b"/"), (b"x-own", b"1")], limits=[], via=VIA)
    ]
    assert b"service-worker-allowed" not in names
    assert b"x-own" in names
