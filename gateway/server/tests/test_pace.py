import pytest

from gateway.config import Config
from gateway.server.pace import Pace


@pytest.fixture
def pace(tmp_path):
    config = Config(
        process="test", kind="web", data_dir=tmp_path, nats_url="", redis_url="", key_pepper=b"", secret_key=b"",
        public_url="", body_rate_floor_bytes_per_s=500, body_rate_grace_s=5, body_stall_s=15,
    )  # fmt: skip
    return Pace(config, 100.0)


def test_a_body_at_the_slowest_rate_may_take_its_time(pace):
    assert not any(pace.is_late(100.0 + second, 500 * second, False) for second in range(1000))


def test_a_body_without_bytes_has_the_grace_period(pace):
    assert not pace.is_late(104.9, 0, False)
    assert pace.is_late(105.1, 0, False)


def test_a_body_that_came_fast_may_pause_but_not_for_long(pace):
    assert not pace.is_late(101.0, 10_000_000, False)
    assert not pace.is_late(115.9, 10_000_000, False)
    assert pace.is_late(116.1, 10_000_000, False)


def test_time_in_which_the_gateway_does_not_read_is_not_counted(pace):
    assert not pace.is_late(101.0, 70_000, False)
    assert not any(pace.is_late(second, 70_000, True) for second in range(101, 200))
    assert not pace.is_late(203.9, 70_000, False)
    assert pace.is_late(204.1, 70_000, False)
