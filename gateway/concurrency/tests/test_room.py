from gateway.concurrency.room import make_room


def test_the_oldest_eighth_is_forgotten_once_there_is_no_room():
    kept = dict.fromkeys(range(16))
    make_room(kept, 17)
    assert len(kept) == 16
    make_room(kept, 16)
    assert list(kept) == list(range(2, 16))


def test_room_is_made_in_the_smallest_memory():
    kept = {1: None}
    make_room(kept, 1)
    assert kept == {}
