"""What one MQTT connection remembers: no socket, no clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.mqtt.packets import V5, V311, Connect, Publish
from gateway.wire.mqtt.session import (
    IN_FLIGHT_MAX,
    PACKET_ID_MAX,
    RECEIVE_MAX,
    RECEIVE_MAX_EXCEEDED,
    TOPIC_ALIAS_MAX,
    ConnectedClients,
    Session,
)
from gateway.wire.mqtt.types import BAD_ALIAS, PROTOCOL_ERROR, PacketError


def session(version=V5, client_id="c", keep_alive_s=0, **properties):
    return Session(Connect(version, client_id, True, keep_alive_s, properties=properties))


def test_a_client_counts_as_gone_after_one_and_a_half_keep_alive_intervals():
    assert session(keep_alive_s=60).silence_max_s == 90
    assert session(keep_alive_s=0).silence_max_s is None


def test_a_duplicate_of_qos_2_is_known_until_it_is_released():
    mine = session()
    assert mine.begin_receiving(7)
    assert not mine.begin_receiving(7)
    assert not mine.is_stored(7)
    mine.mark_stored(7)
    assert mine.is_stored(7)
    assert mine.release(7)
    assert not mine.release(7)
    assert mine.begin_receiving(7)


def test_publishes_that_are_never_released_are_bounded():
    mine = session()
    for packet_id in range(1, RECEIVE_MAX + 1):
        assert mine.begin_receiving(packet_id)
    with pytest.raises(PacketError) as fault:
        mine.begin_receiving(RECEIVE_MAX + 1)
    assert fault.value.code == RECEIVE_MAX_EXCEEDED
    assert not mine.begin_receiving(1)


def test_no_more_is_in_flight_than_the_client_takes():
    mine = session(receive_maximum=2)
    first, second = mine.next_id(), mine.next_id()
    assert not mine.can_send()
    mine.hold((b"topic", b"", b"payload"), retain=True)
    assert (mine.next_held(), mine.held_bytes) == (None, 12)
    mine.acknowledge(second)
    mine.acknowledge(second)
    assert mine.next_held() == ((b"topic", b"", b"payload"), True)
    assert (mine.next_held(), mine.held_bytes) == (None, 0)
    assert mine.next_id() != first
    assert not mine.can_send()


def test_no_more_is_in_flight_than_we_allow():
    mine = session(V311)
    for _ in range(IN_FLIGHT_MAX):
        assert mine.can_send()
        mine.next_id()
    assert not mine.can_send()


@given(st.lists(st.integers(0, IN_FLIGHT_MAX - 1), max_size=300))
def test_a_packet_id_in_flight_is_never_taken_again(acknowledged):
    mine, in_flight = session(), []
    for position in acknowledged:
        if mine.can_send():
            packet_id = mine.next_id()
            assert 1 <= packet_id <= PACKET_ID_MAX
            assert packet_id not in in_flight
            in_flight.append(packet_id)
        if position < len(in_flight):
            mine.acknowledge(in_flight.pop(position))


def test_packet_ids_begin_again_after_the_last_and_leave_out_what_is_in_flight():
    mine = session()
    first = mine.next_id()
    taken = [mine.next_id() for _ in range(1)]
    for _ in range(PACKET_ID_MAX - 2):
        mine.acknowledge(mine.next_id())
    assert mine.next_id() not in (first, *taken)


def test_a_topic_alias_is_the_topic_last_sent_with_it():
    mine = session()
    assert mine.topic_of(Publish("a", b"")) == "a"
    assert mine.topic_of(Publish("a", b"", properties={"topic_alias": 1})) == "a"
    assert mine.topic_of(Publish("", b"", properties={"topic_alias": 1})) == "a"
    assert mine.topic_of(Publish("b", b"", properties={"topic_alias": 1})) == "b"
    assert mine.topic_of(Publish("", b"", properties={"topic_alias": 1})) == "b"


@pytest.mark.parametrize(("alias", "code"), [(TOPIC_ALIAS_MAX + 1, BAD_ALIAS), (2, PROTOCOL_ERROR)])
def test_an_alias_out_of_range_or_never_set_is_an_error(alias, code):
    with pytest.raises(PacketError) as fault:
        session().topic_of(Publish("", b"", properties={"topic_alias": alias}))
    assert fault.value.code == code


def test_connack_of_mqtt_5_says_what_is_taken_and_names_a_client_without_id():
    limits = session(client_id="").limits(1000)
    assert (limits["maximum_packet_size"], limits["receive_maximum"], limits["session_expiry"]) == (
        1000,
        RECEIVE_MAX,
        0,
    )
    assert limits["assigned_client_id"].startswith("auto-")
    assert session(client_id="").limits(1000)["assigned_client_id"] != limits["assigned_client_id"]
    assert "assigned_client_id" not in session().limits(1000)
    assert session(V311).limits(1000) == {}


def test_a_client_takes_its_own_place_and_nobody_elses():
    left = []
    clients = ConnectedClients()
    first, second, other = (lambda name=name: left.append(name) for name in ("first", "second", "other"))
    clients.register("acme", "sensor", first)
    clients.register("bolt", "sensor", other)
    assert left == []
    clients.register("acme", "sensor", second)
    assert left == ["first"]
    clients.unregister("acme", "sensor", first)
    clients.register("acme", "sensor", first)
    assert left == ["first", "second"]
