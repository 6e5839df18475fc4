from apimgmt.worker_watch import CHECK_S, STUCK, STUCK_AFTER_S, WorkerWatch


def stuck_within(watch, looks=20, at=None):
    """Look as often as it does; say at which look it is stuck, None for none of them."""
    for number in range(looks):
        if at is not None:
            at(number)
        if watch.is_stuck(1e9 + number * CHECK_S):
            return number
    return None


def test_a_worker_that_takes_nothing_of_what_waits_is_stuck():
    assert stuck_within(WorkerWatch(lambda: 3)) == STUCK_AFTER_S / CHECK_S


def test_one_that_has_nothing_to_do_is_not():
    assert stuck_within(WorkerWatch(lambda: 0)) is None


def test_one_whose_hands_are_full_is_not():
    watch = WorkerWatch(lambda: 3)
    watch.begins()
    assert stuck_within(watch) is None
    watch.ends()
    assert stuck_within(watch) is not None


def test_one_that_takes_what_waits_is_not_however_much_that_is():
    watch = WorkerWatch(lambda: 3)

    def take(number):
        watch._took_at = 1e9 + number * CHECK_S  # as ``took`` does, on the clock of this test

    assert stuck_within(watch, at=take) is None


def test_one_whose_broker_is_away_is_not():
    def away():
        raise ConnectionError

    assert stuck_within(WorkerWatch(away)) is None


def test_a_stuck_worker_ends(monkeypatch):
    monkeypatch.setattr("apimgmt.worker_watch.CHECK_S", 0.001)
    monkeypatch.setattr("apimgmt.worker_watch.STUCK_AFTER_S", 0.01)
    ended = []
    watch = WorkerWatch(lambda: 1, ended.append)
    watch.start()
    watch.join(20)
    assert ended == [STUCK]
