import pytest

from audit.storable import require_plain


@pytest.mark.parametrize("value", [None, True, 0, -(2**63), 1.5, "ümlaut ☃", [], {"a": [{"b": None}]}, ("a",)])
def test_plain_json_is_kept(value):
    require_plain(value)


@pytest.mark.parametrize(
    "value", ["\x00", "\ud800", {"\x00": 1}, {1: 2}, [float("nan")], {"a": float("inf")}, 2**64, object(), b"", {1}]
)
def test_what_some_database_or_client_cannot_represent_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        require_plain(value)


def test_depth_is_bounded():
    value = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(ValueError, match="levels deep"):
        require_plain(value)
