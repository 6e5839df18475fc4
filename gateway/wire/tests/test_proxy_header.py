"""The PROXY protocol's binary header, by HAProxy's specification."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import proxy_header
from gateway.wire.proxy_header import LOCAL, REST_MAX_BYTES, SIGNATURE, START_BYTES, MalformedProxyHeader

TLV = b"\x04\x00\x03abc"
TCP4, TCP6, UNIX, UNSPECIFIED = 0x11, 0x21, 0x31, 0x00


def header(client, port=5000, *, version_and_command=0x21, family=None, more=b""):
    ip = ip_address(client)
    addresses = ip.packed + ip.packed + port.to_bytes(2) + (443).to_bytes(2) + more
    family = family if family is not None else {4: TCP4, 6: TCP6}[ip.version]
    return SIGNATURE + bytes([version_and_command, family]) + len(addresses).to_bytes(2) + addresses


def read(data):
    start = data[:START_BYTES]
    length = proxy_header.rest_bytes(start)
    assert len(data) >= START_BYTES + length
    return proxy_header.source(start, data[START_BYTES : START_BYTES + length])


@pytest.mark.parametrize("ip", ["203.0.113.7", "2001:db8::7", "0.0.0.0"])
@pytest.mark.parametrize("more", [b"", TLV, b"\xff" * 200])
def test_the_client_is_reported_whatever_extensions_follow(ip, more):
    assert read(header(ip, 61_234, more=more)) == (ip, 61_234)


def test_an_ipv4_address_in_ipv6_is_read_as_ipv4():
    assert read(header("::ffff:192.0.2.1")) == ("192.0.2.1", 5000)


@pytest.mark.parametrize(
    "data",
    [
        LOCAL,
        header("192.0.2.1", version_and_command=0x20),
        SIGNATURE + b"\x20\xff\x00\x03abc",
        SIGNATURE + b"\x21\x00\x00\x00",
        SIGNATURE + b"\x21\x00\x00\x06" + TLV,
        SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
    ],
    ids=["local", "local with addresses", "local of any family", "unspecified", "unspecified with TLV", "unix"],
)
def test_without_a_reported_client_the_connections_own_address_counts(data):
    assert read(data) is None


@pytest.mark.parametrize(
    "start",
    [
        b"",
        SIGNATURE,
        b"PROXY TCP4 1.2.3",
        b"GET / HTTP/1.1\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c",
        SIGNATURE + b"\x31\x11\x00\x0c",
        SIGNATURE + b"\x22\x11\x00\x0c",
        SIGNATURE + b"\x21\x12\x00\x0c",
        SIGNATURE + b"\x21\x41\x00\x0c",
        SIGNATURE + b"\x21\x01\x00\x0c",
        SIGNATURE + b"\x21\x11\x00\x0b",
        SIGNATURE + b"\x21\x21\x00\x23",
        SIGNATURE + b"\x21\x31\x00\xd7",
        SIGNATURE + b"\x21\x11" + (REST_MAX_BYTES + 1).to_bytes(2),
        SIGNATURE + b"\x20\x00\xff\xff",
    ],
    ids=[
        "nothing", "short", "version 1", "http", "version 1 in binary", "version 3", "unknown command", "datagram",
        "unknown family", "stream of no family", "short tcp4", "short tcp6", "short unix", "too long", "local too long",
    ],
)  # fmt: skip
def test_everything_else_is_malformed(start):
    with pytest.raises(MalformedProxyHeader):
        proxy_header.rest_bytes(start)


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_any_bytes_are_read_or_malformed(fields, rest):
    start = SIGNATURE + fields
    try:
        length = proxy_header.rest_bytes(start)
    except MalformedProxyHeader:
        return
    assert length <= REST_MAX_BYTES
    source = proxy_header.source(start, (rest + bytes(REST_MAX_BYTES))[:length])
    assert source is None or ip_address(source[0])
