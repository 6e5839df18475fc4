"""Which values of ``Host`` are valid."""

import pytest

from gateway.wire.host import has_valid_host, is_host

VALID = [
    b"gateway.test", b"GATEWAY.test", b"gateway.test:8000", b"gateway.test.", b"localhost", b"a_b.internal",
    b"xn--bcher-kva.example",
    b"192.0.2.1", b"192.0.2.1:65535", b"[::1]", b"[2001:db8::1]:443", b"[::ffff:192.0.2.1]",
]  # fmt: skip
INVALID = [
    b"", b" ", b"gateway.test ", b"gate way.test", b"gateway.test\t", b"user@gateway.test", b"user:pw@gateway.test",
    b"@",
    b"gateway.test/", b"gateway.test/admin", b"gateway.test?a", b"gateway.test#a", b"http://gateway.test",
    b"gateway.test\\",
    b"gateway.test:", b"gateway.test:abc", b"gateway.test:0", b"gateway.test:65536", b"gateway.test:80:80",
    b"gateway.test:-1",
    b"gateway.test:+80", b"gateway.test:80 ", b"gateway.test:\xd9\xa1", b"a,b", b"a;b", b"a..b", b".a", b"a%00b",
    b"a%2eb", b"\x00", b"a\x00b", b"a\nb",
    b"a\x7fb", b"b\xc3\xbccher.example", b"::1", b"[::1", b"::1]", b"[::1]x", b"[]", b"[::g]", b"[1.2.3.4]",
    b"[fe80::1%25eth0]", b"[v1.a]",
    b"<script>", b"'", b'"', b"a" * 256,
]  # fmt: skip


@pytest.mark.parametrize("value", VALID)
def test_a_name_or_address_with_a_port_or_without_is_valid(value):
    assert is_host(value)
    assert has_valid_host(b"http://" + value + b"/path?query")


@pytest.mark.parametrize("value", INVALID)
def test_anything_else_is_not(value):
    assert not is_host(value)


@pytest.mark.parametrize("target", [b"/", b"//evil@x/", b"*", b"/http://a@b/"])
def test_a_target_without_a_host_names_none(target):
    assert has_valid_host(target)


@pytest.mark.parametrize("host", [b"", b"user@gateway.test", b"a b", b"gateway.test:x", b"a\\b"])
def test_the_host_of_an_absolute_target_must_be_valid(host):
    assert not has_valid_host(b"http://" + host + b"/path")
    assert not has_valid_host(b"HTTPS://" + host)
