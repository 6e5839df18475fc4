import json

from benchmarks.report import Report, Section, document, lines, page
from benchmarks.sampling import OURS, Row, figures_of


def section(**runs):
    rows = [Row("get", who, figures_of(samples)) for who, samples in runs.items()]
    return Section("get", "GET 101 B", "A small answer.", rows)


def report(*sections, absent=None):
    return Report("2026-12-01", 3, 2, sections, absent or {})


STEADY = [{"cpu_us": 28.0, "per_s": 30_000.0}, {"cpu_us": 30.0, "per_s": 33_000.0}]
PEER = [{"cpu_us": 58.0, "per_s": 15_000.0}, {"cpu_us": 58.0, "per_s": 15_000.0}]
ERRATIC = [{"cpu_us": 40.0, "per_s": 9_000.0}, {"cpu_us": 80.0, "per_s": 9_000.0}]


def test_the_page_has_a_row_for_each_server_with_its_cost_spread_rate_and_ratio():
    written = page(report(section(**{OURS: STEADY, "Envoy": PEER})))
    assert "| GET 101 B | apimgmt | 29.0 µs cpu ±3 % | 31,500/s ±5 % |  |" in written
    assert "|  | Envoy | 58.0 µs cpu ±0 % | 15,000/s ±0 % | 2.00 |" in written
    assert "- **GET 101 B** (`script/bench get`): A small answer." in written


def test_the_page_gives_the_extremes_of_runs_that_differ_too_much_and_no_ratio():
    assert "|  | Envoy | 40.0…80.0 µs cpu | 9,000/s ±0 % |  |" in page(
        report(section(**{OURS: STEADY, "Envoy": ERRATIC}))
    )


def test_the_page_names_each_peer_that_is_not_installed_and_how_to_install_it():
    written = page(report(section(**{OURS: STEADY}), absent={"Caddy": "Debian: `apt-get install caddy`"}))
    assert "- **Caddy**: Debian: `apt-get install caddy`" in written
    assert "Not installed" not in page(report(section(**{OURS: STEADY})))


def test_the_terminal_has_a_line_for_each_server():
    ours, peer = lines(section(**{OURS: STEADY, "Envoy": PEER}))
    assert "29.0 µs cpu ±3 %" in ours
    assert peer.endswith("2.00")


def test_the_document_has_every_figure_of_every_server():
    written = json.loads(json.dumps(document(report(section(**{OURS: STEADY}), absent={"Caddy": "how"}))))
    assert written["works"]["get"][OURS]["cpu_us"] == {"median": 29.0, "lowest": 28.0, "highest": 30.0}
    assert written["absent"] == {"Caddy": "how"}
