import pytest

from benchmarks.sampling import OURS, Figure, Row, figures_of, ratio


def row(who, *values, name="cpu_us"):
    return Row("work", who, figures_of([{name: value} for value in values]))


def test_a_figure_is_the_median_with_the_extremes_of_its_runs():
    assert figures_of([{"cpu_us": 30.0}, {"cpu_us": 20.0}, {"cpu_us": 22.0}]) == {"cpu_us": Figure(22.0, 20.0, 30.0)}


def test_the_spread_is_the_difference_of_the_extremes_as_a_share_of_the_median():
    assert Figure(20.0, 18.0, 22.0).spread == pytest.approx(0.2)
    assert Figure(0.0, 0.0, 0.0).spread == 0.0


@pytest.mark.parametrize(
    ("figure", "is_repeatable"),
    [
        (Figure(20, 18, 22), True),
        (Figure(20, 15, 25), False),
        (Figure(0.1, 0.0, 0.3), True),
        (Figure(-1, -3, 1), False),
    ],
)
def test_a_figure_is_repeatable_if_its_runs_agree_or_their_difference_is_negligible(figure, is_repeatable):
    assert figure.is_repeatable is is_repeatable


def test_measures_keep_the_order_of_the_report_and_the_first_one_is_compared():
    both = Row("work", OURS, figures_of([{"p50_ms": 1.0, "per_s": 9.0, "cpu_us": 25.0}]))
    assert list(both.figures) == ["cpu_us", "per_s", "p50_ms"]
    assert both.cost == "cpu_us"


def test_the_ratio_is_the_peers_cost_by_ours():
    assert ratio(row("Envoy", 70, 70), row(OURS, 28, 28)) == pytest.approx(2.5)


def test_ours_has_no_ratio_nor_has_a_figure_that_another_run_would_not_repeat():
    assert ratio(row(OURS, 28), row(OURS, 28)) is None
    assert ratio(row("Envoy", 50, 70, 90), row(OURS, 28)) is None
    assert ratio(row("Envoy", 70), row(OURS, 20, 28, 36)) is None
    assert ratio(row("Envoy", 70, name="kib"), row(OURS, 28)) is None
