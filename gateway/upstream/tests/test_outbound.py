from ipaddress import ip_network

import pytest

from gateway.upstream.outbound import is_forbidden, is_inner, is_own

INNER = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0x7f.1",
    "0.0.0.0",
    "0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "[::1]",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12::1",
    "ff02::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2001:0:7f00:1::",
    "127.0.0.1.",
    "0x7f.1.",
    "168.63.129.16",
    "64:ff9b:1::1",
    "64:ff9b:1::808:808",
    "::ffff:0:127.0.0.1",
    "::ffff:0:a00:1",
    "fec0::1",
    "192.0.0.9",
    "192.88.99.1",
    "100.100.100.200",
    "fd00:ec2::254",
    "2001:db8:1::5efe:127.0.0.1",
    "3fff::1",
    "100::1",
]
FORBIDDEN = [
    "169.254.169.254",
    "0xa9fea9fe",
    "169.16689662",
    "::ffff:169.254.169.254",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "[fd00:ec2::23]",
    "100.100.100.200",
    "0x646464c8",
    "168.63.129.16",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::6464:64c8",
    "64:ff9b:1::a9fe:a9fe",
    "::ffff:0:169.254.169.254",
    "::169.254.169.254",
    "2002:a9fe:a9fe::",
    "2606::5efe:169.254.169.254",
]
NOT_FORBIDDEN = [
    "10.0.0.1",
    "127.0.0.1",
    "192.168.1.1",
    "fd12::1",
    "::1",
    "100.100.100.201",
    "8.8.8.8",
    "64:ff9b::a00:1",
    "a.example",
]
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


@pytest.mark.parametrize("host", FORBIDDEN)
def test_metadata_services_in_every_spelling_are_forbidden_to_operators_too(host):
    assert is_forbidden(host)
    assert is_inner(host)


@pytest.mark.parametrize("host", NOT_FORBIDDEN)
def test_an_operator_may_name_private_addresses(host):
    assert not is_forbidden(host)


def test_an_operator_may_allow_a_metadata_network():
    assert not is_forbidden("169.254.1.2", [ip_network("169.254.1.0/24")])
    assert is_forbidden("169.254.2.2", [ip_network("169.254.1.0/24")])


OWN = {("127.0.0.1", 6379), ("0.0.0.0", 8001), ("nats.internal", 4222), ("192.0.2.7", 5432)}


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 6379),
        ("0x7f.1", 6379),
        ("::ffff:127.0.0.1", 6379),
        ("127.9.9.9", 6379),
        ("[::1]", 8001),
        ("0.0.0.0", 8001),
        ("NATS.internal.", 4222),
        ("192.0.2.7", 5432),
    ],
)
def test_own_endpoints_are_known_in_every_spelling(host, port):
    assert is_own(host, port, OWN)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 8000), ("192.0.2.7", 6379), ("other.internal", 4222)])
def test_other_ports_and_hosts_are_not_own(host, port):
    assert not is_own(host, port, OWN)
