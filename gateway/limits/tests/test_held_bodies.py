import pytest

from gateway.limits.held_bodies import HeldBodies
from gateway.refusals import Reason, Refused


def test_one_consumer_holds_no_more_than_its_share():
    bodies = HeldBodies(consumer_max_bytes=100, process_max_bytes=1000)
    bodies.hold("acme", 100)
    with pytest.raises(Refused) as refused:
        bodies.hold("acme", 1)
    assert (refused.value.reason, refused.value.status) == (Reason.RATE_LIMITED, 429)
    assert refused.value.cause == "bodies-of-consumer"
    assert (bodies.of("acme"), bodies.total_bytes) == (100, 100)
    bodies.release("acme", 100)
    bodies.hold("acme", 100)


def test_a_new_consumer_finds_room_however_many_hold_all_they_can():
    bodies = HeldBodies(consumer_max_bytes=500, process_max_bytes=1000)
    for number in range(5):
        bodies.hold(f"c{number}", 1)
        with pytest.raises(Refused) as refused:
            hold_all(bodies, f"c{number}")
    assert (refused.value.reason, refused.value.status) == (Reason.OVERLOADED, 503)
    assert refused.value.cause == "bodies-of-process"
    bodies.hold("new", 10)
    assert bodies.total_bytes < 1000


def hold_all(bodies, consumer):
    while True:
        bodies.hold(consumer, 1)


def test_what_is_released_is_forgotten():
    bodies = HeldBodies()
    bodies.hold("acme", 5)
    bodies.hold("acme", 6)
    bodies.release("acme", 11)
    assert (bodies.of("acme"), bodies.total_bytes) == (0, 0)
