from ipaddress import ip_network

import pytest

from gateway.upstream.outbound import is_inner

INNER = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "0.0.0.0", "0", "10.1.2.3", "172.16.0.1",
    "192.168.1.1", "169.254.169.254", "0xa9fea9fe", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "[::1]", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254",
    "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "2001:0:7f00:1::", "127.0.0.1.", "0x7f.1.",
]  # fmt: skip
OUTER = ["1.1.1.1", "8.8.8.8", "134744072", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "a.example"]


@pytest.mark.parametrize("host", INNER)
def test_inner_addresses_in_every_spelling_are_known(host):
    assert is_inner(host)


@pytest.mark.parametrize("host", OUTER)
def test_public_addresses_and_names_are_let_through(host):
    assert not is_inner(host)


def test_the_operator_may_allow_networks():
    allowed = [ip_network("127.0.0.0/8"), ip_network("fd00::/8")]
    for host in ("127.0.0.1", "0x7f000001", "::ffff:127.0.0.1", "fd12::1"):
        assert not is_inner(host, allowed)
    for host in ("10.0.0.1", "::1", "169.254.169.254"):
        assert is_inner(host, allowed)
