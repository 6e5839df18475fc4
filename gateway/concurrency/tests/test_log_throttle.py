"""The same event is logged once per interval, with how often it was left out."""

from gateway.concurrency.log_throttle import LogThrottle


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_an_event_is_let_through_once_per_interval_and_then_with_a_count():
    clock = Clock()
    throttle = LogThrottle(60.0, clock=clock)
    assert [throttle.suffix("a") for _ in range(3)] == ["", None, None]
    assert throttle.suffix("b") == ""
    clock.now += 60
    assert throttle.suffix("a") == " (and 2 more times since this was last logged)"
    assert throttle.suffix("a") is None
    clock.now += 60
    assert throttle.suffix("b") == ""


def test_only_so_many_events_are_remembered():
    throttle = LogThrottle(60.0, keys_max=3, clock=Clock())
    for number in range(10):
        assert throttle.suffix(number) == ""
    assert len(throttle._seen) == 3
    assert throttle.suffix(9) is None
    assert throttle.suffix(0) == ""
