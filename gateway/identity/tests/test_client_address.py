"""Which address a request counts as the client's, and which scheme."""

from ipaddress import ip_network

import pytest

from gateway.identity.client_address import client_ip, client_scheme, network_of

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def forwarded(*values):
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("peer", "values", "ip"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", [" \t198.51.100.7 "], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["2001:DB8:0::7"], "2001:db8::7"),
        ("10.0.0.1", ["\xb2.0.2.1"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("fd00::1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(peer, values, ip):
    assert client_ip(peer, forwarded(*values), PROXIES) == ip


def test_without_trusted_proxies_nothing_is_believed():
    assert client_ip("127.0.0.1", forwarded("198.51.100.7"), ()) == "127.0.0.1"
    assert client_scheme("127.0.0.1", [(b"x-forwarded-proto", b"https")], ()) is None


@pytest.mark.parametrize(
    ("peer", "values", "scheme"),
    [
        ("192.0.2.1", [b"https"], None),
        ("10.0.0.1", [], None),
        ("10.0.0.1", [b"https"], "https"),
        ("10.0.0.1", [b"HTTPS"], "https"),
        ("10.0.0.1", [b"https, http"], "http"),
        ("10.0.0.1", [b"https", b"http"], "http"),
        ("10.0.0.1", [b"javascript"], None),
    ],
)
def test_the_scheme_is_what_the_nearest_trusted_proxy_reports(peer, values, scheme):
    assert client_scheme(peer, [(b"x-forwarded-proto", value) for value in values], PROXIES) == scheme


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::c000:201", "192.0.2.1", False),
        ("nonsense", "", True),
    ],
)
def test_ipv6_addresses_of_a_site_are_one_network(one, other, is_same):
    assert (network_of(one) == network_of(other)) is is_same
