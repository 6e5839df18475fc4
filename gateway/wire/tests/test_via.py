import pytest

from gateway.wire.via import has_passed, own_entry

ENTRY = own_entry(b"secret")


@pytest.mark.parametrize(
    ("value", "is_loop"),
    [
        (ENTRY, True),
        (b"1.0 fred, " + ENTRY + b" (Python), 1.1 nginx", True),
        (b"HTTP/2 " + ENTRY.split()[1].upper(), True),
        (b"1.1 nginx,," + ENTRY.replace(b" ", b"\t"), True),
        (own_entry(b"another"), False),
        (ENTRY + b"0", False),
        (b"1.1 x-" + ENTRY.split()[1], False),
        (ENTRY.split()[1], False),
        (b"1.1 nginx (" + ENTRY.split()[1] + b")", False),
        (b"", False),
    ],
)
def test_a_message_has_passed_who_is_named_in_its_via(value, is_loop):
    assert has_passed(ENTRY, value) is is_loop
