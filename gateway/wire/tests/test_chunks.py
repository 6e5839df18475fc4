import pytest

from gateway.wire.chunks import whole_body


@pytest.mark.parametrize(
    ("framed", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"002\r\nok\r\nA\r\n0123456789\r\n0\r\n\r\n", b"ok0123456789"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    ],
)
def test_chunks_that_have_arrived_whole_are_one_body(framed, body):
    assert whole_body(b"head" + framed, 4) == body


@pytest.mark.parametrize(
    "framed",
    [
        b"", b"0\r\n", b"2\r\nok\r\n", b"2\r\nok\r\n0\r\n", b"2\r\nok", b"2;a=b\r\nok\r\n0\r\n\r\n", b"0;a\r\n\r\n",
        b"2\r\nok\r\n0\r\nx: y\r\n\r\n", b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK", b"2\r\nokay\r\n0\r\n\r\n",
        b"-2\r\nok\r\n0\r\n\r\n", b"+2\r\nok\r\n0\r\n\r\n", b"0x2\r\nok\r\n0\r\n\r\n", b"2 \r\nok\r\n0\r\n\r\n",
        b"2\nok\n0\n\n", b"00\r\n\r\n0\r\n\r\n", b"ffffffffff\r\nok\r\n0\r\n\r\n", b"ffffffff\r\nok\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_anything_else_is_left_to_a_parser(framed):
    assert whole_body(framed, 0) is None
