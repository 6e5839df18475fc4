import socket
import struct

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tests.nats_server import NatsServer
from gateway.wire.subjects import (
    AddressError,
    Template,
    address_of,
    address_subject,
    filters_of,
    is_pattern,
    live,
    meet,
    reading_filter,
    stored_prefix,
    stream_of,
    subject_of,
)

MADE_OF = "ab.é-_~{*> \t\n\r\x01\x7f\x85\u00a0\u2028\u3000\ufeff\uffff💡2AF"
LEVELS = st.text(
    st.sampled_from(MADE_OF) | st.characters(exclude_characters="\0/+#", exclude_categories=["Cs"]), max_size=6
)
ADDRESSES = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(lambda address: address.strip("$"))
ADDRESSES = ADDRESSES.filter(lambda address: not address.startswith("$"))
TOKENS = st.sampled_from(["a", "b", "*"])
FILTERS = st.tuples(st.lists(TOKENS, min_size=1, max_size=4), st.booleans()).map(
    lambda made: ".".join([*made[0], *([">"] if made[1] else [])])
)
SUBJECTS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map(".".join)


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("a/b", "a.b"),
        ("/a", "/.a"),
        ("a/", "a./"),
        ("a//b", "a./.b"),
        ("/", "/./"),
        ("a.b", "a//b"),
        ("a/b.c", "a.b//c"),
        ("trades/BTC.USD", "trades.BTC//USD"),
        ("é/ü", "é.ü"),
        ("my room/warm day", "my/20room.warm/20day"),
        ("a. b", "a///20b"),
        (" 41", "/2041"),
        ("x>y/a*b", "x/3Ey.a/2Ab"),
        (">/*", "/3E./2A"),
        ("tab\tline\n", "tab/09line/0A"),
        ("a\u00a0", "a/C2/A0"),
        ("\ufeffa\uffff", "\ufeffa\uffff"),
    ],
)
def test_an_address_maps_as_nats_maps_mqtt_topics(address, subject):
    assert subject_of(address) == subject
    assert address_of(subject) == address


@given(ADDRESSES)
def test_the_table_can_be_read_backwards(address):
    assert address_of(subject_of(address)) == address


@given(ADDRESSES, ADDRESSES)
def test_two_addresses_never_share_a_subject(one, other):
    assert (subject_of(one) == subject_of(other)) == (one == other)


@pytest.mark.parametrize(
    "address",
    ["", "a\x00", "\ud800", "$SYS/a", "$", "_INBOX/x", "_INBOX", "_apimgmt/live/a", "a/+", "#", "x" * 1025, "é" * 513],
)
def test_what_would_reach_beyond_its_own_name_is_no_address(address):
    with pytest.raises(AddressError):
        subject_of(address)


@pytest.mark.parametrize(
    ("mqtt_filter", "subjects"),
    [
        ("a/+/b", ("a.*.b",)),
        ("a/#", ("a.>", "a")),
        ("#", (">",)),
        ("+", ("*",)),
        ("a.b/#", ("a//b.>", "a//b")),
        ("+/+", ("*.*",)),
        ("*/>", ("/2A./3E",)),
        ("my room/{x}/#", ("my/20room.{x}.>", "my/20room.{x}")),
    ],
)
def test_a_topic_filter_becomes_subject_filters(mqtt_filter, subjects):
    assert filters_of(mqtt_filter) == subjects


@pytest.mark.parametrize("mqtt_filter", ["a/#/b", "a#", "a/b#", "a+", "+a/b", "", "$SYS/#", "##", "a\0"])
def test_a_filter_that_mqtt_forbids_is_refused(mqtt_filter):
    with pytest.raises(AddressError):
        filters_of(mqtt_filter)


def matches(subject_filter: str, subject: str) -> bool:
    """Return whether NATS matches a subject by a filter."""
    patterns, parts = subject_filter.split("."), subject.split(".")
    for position, pattern in enumerate(patterns):
        if pattern == ">":
            return len(parts) > position
        if position >= len(parts) or pattern not in ("*", parts[position]):
            return False
    return len(patterns) == len(parts)


@given(FILTERS, FILTERS, SUBJECTS)
def test_two_filters_meet_in_what_both_match(one, other, subject):
    for common in (meet(one, other), meet(other, one)):
        is_matched = common is not None and matches(common, subject)
        assert is_matched == (matches(one, subject) and matches(other, subject))


def test_a_filter_matches_as_nats_says():
    assert matches("a.>", "a.b.c")
    assert not matches("a.>", "a")
    assert matches("a.*", "a.b")
    assert not matches("a.*", "a.b.c")
    assert meet("a.b", "a.c") is None
    assert meet("a", "a.>") is None
    assert meet("*.b.>", "a.*.c") == "a.b.c"


def test_a_template_covers_what_its_parameters_stand_for():
    template = Template.parse("sensors/{deviceId}/temperature")
    assert (template.subject, template.parameters) == ("sensors.*.temperature", ("deviceId",))
    assert template.covers(subject_of("sensors/lab.1/temperature"))
    assert template.covers("sensors.*.temperature")
    assert not template.covers(subject_of("sensors/a/b/temperature"))
    assert not template.covers(subject_of("sensors/a/humidity"))
    assert not template.covers("sensors.>")


def test_the_rest_of_a_template_is_one_level_or_more():
    template = Template.parse("files/{owner}/{path...}")
    assert (template.subject, template.parameters) == ("files.*.>", ("owner", "path"))
    assert template.covers(subject_of("files/ann/a b/c.txt"))
    assert template.covers(subject_of("files/ann/"))
    assert not template.covers(subject_of("files/ann"))
    assert not template.covers(subject_of("files//a"))


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("a b", "a/20b"),
        ("a/+", "a.*"),
        ("+/b/#", "*.b.>"),
        ("{device}/events", "*.events"),
        ("files/{path...}", "files.>"),
        ("{6B29FC40-CA47-1067-B31D-00DD010662DA}/x", "{6B29FC40-CA47-1067-B31D-00DD010662DA}.x"),
        ("a*b", "a/2Ab"),
    ],
)
def test_what_is_read_may_have_wildcards_of_both_kinds(address, subject):
    assert reading_filter(address) == subject
    assert is_pattern(subject) == any(mark in address for mark in ("+", "#", "{device}", "{path...}"))


@pytest.mark.parametrize("address", ["a/#/b", "{x...}/b", "", "$SYS/#", "a\0"])
def test_what_no_reader_could_ask_for_is_refused(address):
    with pytest.raises(AddressError):
        reading_filter(address)


def test_an_event_has_the_subject_of_its_address_wherever_it_is_read():
    stored = stored_prefix(stream_of("a/{x}")) + "a.b//c"
    assert address_subject(stored) == address_subject(live("a.b//c")) == address_subject("a.b//c") == "a.b//c"


@pytest.mark.parametrize("address", ["a/{x}y", "a/{x}/{x}", "a/{}", "a/+", "a/#", "a/{x y}", "{", "a/{x...}/b",
                                     "{x...}/{y...}", "a/{...}", "a/{x..}y", "a/{x....}b"])  # fmt: skip
def test_a_template_whose_parameters_are_no_whole_levels_is_refused(address):
    with pytest.raises(AddressError):
        Template.parse(address)


def test_names_of_streams_and_live_subjects_are_those_of_the_architecture():
    assert stream_of("trades") == "CH_4e5f021cb925322a"
    assert live("a.b") == "_apimgmt.live.a.b"


@pytest.mark.parametrize(
    "address", ["a/b", "/a", "a/", "a//b", "/", "a.b", "a/b.c", "é/ü", "//", "..", "a./b", "/.", "x//"]
)
async def test_nats_itself_maps_topics_by_the_same_table(nats_server: NatsServer, address: str):
    client = await nats.connect(nats_server.url)
    subscription = await client.subscribe(">")
    await client.flush()
    mqtt_publish(nats_server.mqtt_port, address, b"here")
    while True:
        message = await subscription.next_msg(timeout=10)
        if message.data == b"here":
            break
    await client.close()
    assert message.subject == subject_of(address)


def mqtt_publish(port: int, topic: str, payload: bytes) -> None:
    """Publish at QoS 0 as an MQTT 3.1.1 client would, and wait until the server has taken it."""
    with socket.create_connection(("127.0.0.1", port), 10) as wire:
        connect = b"\x00\x04MQTT\x04\x02\x00\x3c" + struct.pack("!H", 2) + b"me"
        wire.sendall(bytes([0x10, len(connect)]) + connect)
        assert wire.recv(4) == b"\x20\x02\x00\x00"
        name = topic.encode()
        body = struct.pack("!H", len(name)) + name + payload
        wire.sendall(bytes([0x30, len(body)]) + body + b"\xc0\x00")
        assert wire.recv(2) == b"\xd0\x00"
