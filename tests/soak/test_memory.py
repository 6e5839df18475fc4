import os

from tests.soak.memory import Sample, private_mib, trend_of


def test_growth_is_that_of_the_last_quarter_over_the_first():
    samples = [Sample(60.0 * minute, 100.0 + minute) for minute in range(60)]
    trend = trend_of("web 1", samples)
    assert (trend.grown_mib, trend.mib_an_hour) == (45.0, 60.0)


def test_a_single_peak_is_no_growth():
    samples = [Sample(float(second), 500.0 if second == 99 else 100.0) for second in range(100)]
    assert trend_of("web 1", samples).grown_mib == 0


def test_a_process_that_is_gone_has_no_memory():
    assert private_mib(2**22 + 1) == 0
    assert private_mib(os.getpid()) > 1
