"""No packet id has the same number for two publishes, however many are released and forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.mqtt.uses import USES_MAX, Uses


def test_an_id_has_one_number_from_its_publish_to_its_release():
    uses = Uses()
    first = uses.number(5)
    assert uses.number(5) == first
    uses.end(5)
    assert uses.number(5) != first
    assert uses.number(6) == first


def test_what_is_counted_is_bounded_and_ids_in_use_keep_their_numbers():
    uses, had = Uses(), {packet_id: {0} for packet_id in range(1, 65_536)}
    in_use = {3, 70}
    numbers = [uses.number(packet_id) for packet_id in in_use]
    for packet_id in [*range(100, 65_536), *range(100, 5_000)]:
        uses.end(packet_id)
        if uses.is_full(in_use):
            uses.compact(in_use)
        assert len(uses.counted) <= USES_MAX + len(in_use)
        assert uses.number(packet_id) not in had[packet_id]
        had[packet_id].add(uses.number(packet_id))
    assert [uses.number(packet_id) for packet_id in in_use] == numbers


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=60))
def test_a_number_never_comes_back_wherever_counts_are_forgotten(steps):
    uses, had = Uses(), set()
    for packet_id, is_compacting in steps:
        use = (packet_id, uses.number(packet_id))
        assert use not in had
        had.add(use)
        uses.end(packet_id)
        if is_compacting:
            uses.compact(())
