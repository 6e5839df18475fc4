"""Fields that report a client's names to an upstream (RFC 7239)."""

import pytest

from gateway.wire.forwarded import PublicName, forwarded_fields


@pytest.mark.parametrize(
    ("ip", "name", "forwarded"),
    [
        ("192.0.2.1", PublicName.of("https", "api.example", "", ""), "for=192.0.2.1;host=api.example;proto=https"),
        ("192.0.2.1", PublicName.of("http", "a.test:8000", "", ""), 'for=192.0.2.1;host="a.test:8000";proto=http'),
        ("2001:db8::1", PublicName.of("http", "", "", ""), 'for="[2001:db8::1]";proto=http'),
        ("::1", PublicName.of("http", "[::1]:8000", "", ""), 'for="[::1]";host="[::1]:8000";proto=http'),
    ],
)  # fmt: skip
def test_what_is_no_token_is_quoted(ip, name, forwarded):
    assert dict(forwarded_fields(ip, name))[b"forwarded"] == forwarded.encode()


@pytest.mark.parametrize(
    ("scheme", "host", "port", "expected_port", "origin"),
    [
        ("http", "a.example", "", "80", "http://a.example"),
        ("https", "a.example", "", "443", "https://a.example"),
        ("https", "a.example:8443", "", "8443", "https://a.example:8443"),
        ("https", "a.example", "8443", "8443", "https://a.example:8443"),
        ("https", "a.example", "443", "443", "https://a.example"),
        ("http", "[2001:db8::1]", "", "80", "http://[2001:db8::1]"),
        ("http", "[2001:db8::1]:81", "", "81", "http://[2001:db8::1]:81"),
        ("http", "", "", "80", ""),
    ],
)
def test_a_port_is_that_of_the_host_or_of_the_scheme(scheme, host, port, expected_port, origin):
    name = PublicName.of(scheme, host, port, "")
    assert (name.port, name.origin) == (expected_port, origin)


def test_a_prefix_is_reported_only_if_there_is_one():
    fields = dict(forwarded_fields("192.0.2.1", PublicName.of("http", "a.example", "", "/app")))
    assert fields[b"x-forwarded-prefix"] == b"/app"
    assert (fields[b"x-forwarded-host"], fields[b"x-forwarded-port"]) == (b"a.example", b"80")
    assert b"x-forwarded-prefix" not in dict(forwarded_fields("192.0.2.1", PublicName.of("http", "a.example", "", "")))
