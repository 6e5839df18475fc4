import pytest

from gateway.call import Call
from gateway.handlers.requests import query_lists, require_no_query
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused


def call(query):
    return Call(protocol=Protocol.HTTP, address="/", ip="127.0.0.1", method="GET", query=query, headers=[])


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (b"state=", "state"),
        (b"state", "state"),
        (b"state=%20%09", "state"),
        (b"channel=a&channel=", "channel"),
        (b"state=a&state=a", "state"),
        (b"stat=a", "stat"),
    ],
)
def test_a_parameter_that_is_unknown_empty_or_repeated_is_refused_by_its_name(query, name):
    with pytest.raises(Refused) as raised:
        query_lists(call(query), {"state", "channel"}, repeatable={"channel"})
    assert raised.value.reason is Reason.INVALID_REQUEST
    assert name in raised.value.detail


def test_a_call_without_parameters_has_none():
    require_no_query(call(b""))
    with pytest.raises(Refused, match="dry_run"):
        require_no_query(call(b"dry_run=true"))


def test_repeatable_parameters_are_returned_in_their_order():
    assert query_lists(call(b"channel=b&channel=a"), {"channel"}, repeatable={"channel"}) == {"channel": ["b", "a"]}
