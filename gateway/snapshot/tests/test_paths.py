from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.refusals import Refused
from gateway.snapshot.endpoints import CHANNEL_PREFIX, CHANNEL_SUFFIX
from gateway.snapshot.paths import channel_events_path, normalised

ADDRESSES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def address_in(path):
    return normalised(path.encode()).removeprefix(CHANNEL_PREFIX).removesuffix(CHANNEL_SUFFIX)


@given(ADDRESSES | st.text(st.sampled_from("./\\ %;a"), min_size=1, max_size=8))
def test_every_address_has_a_path(address):
    path = channel_events_path(address)
    if address in (".", ".."):
        return  # clients resolve such a path before they send it
    assert address_in(path) == address


@pytest.mark.parametrize(
    "address", ["a b", "a\\b", "a/../b", "x>y", "a%2Fb", "/a", "a//b", "a;b", "a?b", "..;x/y", "\t\n"]
)
def test_an_address_with_encoded_slashes_is_read_as_it_is(address):
    path = f"/v1/channels/{quote(address, safe='')}/events"
    assert address_in(path) == address


@pytest.mark.parametrize(
    "path",
    [
        "/v1/channels/a/../b/events", "/v1/channels/%2e%2e/%2e%2e/events", "/v1/channels/../../admin/events",
        "/v1/channels/%2E/events", "/v1/channels/a%00b/events", "/v1/channels/a%2F..%2Fb", "/v1/channels/a%5Cb/x",
        "/v1/channels/%ff/events", "/v1/channelsX/a%2F..%2Fb/events", "/api/a%2F..%2Fb/events",
    ],
)  # fmt: skip
def test_a_path_that_others_read_differently_is_refused(path):
    with pytest.raises(Refused) as caught:
        normalised(path.encode())
    assert caught.value.cause == "path-malformed"


def test_slashes_are_encoded_only_where_they_must_be():
    assert channel_events_path("sensors/my room/t") == "/v1/channels/sensors/my%20room/t/events"
    assert channel_events_path("a/../b") == "/v1/channels/a%2F..%2Fb/events"
    assert unquote(channel_events_path("a//b")) == "/v1/channels/a//b/events"
