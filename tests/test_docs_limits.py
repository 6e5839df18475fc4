"""docs/limits.md gives the numbers and names of the code."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from gateway.handlers.proxy import tokens
from gateway.limits import bandwidth, budget, counters, leasing, open_slots, reserving, settling
from gateway.limits import fields as limit_fields
from gateway.limits import store as leases
from gateway.snapshot.picture import Limit, Metric
from gateway.wire import ai_usage, event_stream

PAGE = (Path(__file__).parent.parent / "docs" / "limits.md").read_text()
TEXT = " ".join(PAGE.split())


@pytest.mark.parametrize("name", [metric.value for metric in Metric])
def test_every_metric_is_explained(name):
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", [field.name for field in fields(Limit)])
def test_every_field_of_a_limit_is_explained(name):
    assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize(("documented", "value"), [
    ("max({} s × rate", counters.LEASE_S),
    ("min({} × burst", counters.LEASE_SHARE),
    ("what refills in {} s, if that is more", counters.TAIL_S),
    ("at most **{} % of the burst**", counters.LEASE_SHARE * 100),
    ("a burst below {} (of single", 2 / counters.LEASE_SHARE),
    ("queried again after {} ms at the earliest", counters.PROBE_S * 1000),
    ("no request is left: {} at once", budget.DRY_RUNS.burst),
    ("at once and {} a second, on each process", budget.DRY_RUNS.amount),
    ("This knowledge is used for {} s", counters.BELIEVED_S),
    ("A lease that is idle for {} s is returned", leasing.IDLE_S),
    ("The longest wait is {} s", settling.DELAY_MAX_S),
    ("and {} s for a request", settling.DELAY_REQUEST_MAX_S),
    ("a lease of {} s that", leases.SLOT_S),
    ("its process renews every {} s", open_slots.BEAT_S),
    ("asked to retry in {} s", open_slots.RETRY_S),
    ("left alone for {} s at a time", leases.PAUSE_S),
    ("A month's `w` is {}.", limit_fields.MONTH_S),
    ("no maximum, {} or what is left", reserving.TOKENS_OUT_DEFAULT),
    ("one token for {} bytes of its text", ai_usage.BYTES_A_TOKEN),
    ("a sound or a file counts as {}", ai_usage.MEDIUM_TOKENS),
    ("a JSON answer above {} MiB", tokens.ANSWER_MAX_BYTES / 1024**2),
    ("Events of more than {} MiB", event_stream.EVENT_MAX_BYTES / 1024**2),
    ("in a quarter of a second, {} KiB at least", bandwidth.PIECE_MIN_BYTES / 1024),
])  # fmt: skip
def test_every_number_is_that_of_the_code(documented, value):
    assert documented.format(f"{value:.12g}") in TEXT


def test_defaults_are_those_of_the_code():
    limit_left_out = Limit(Metric.REQUESTS, 1, 1.0)
    for name in ("scope", "exceed", "mode", "close_at", "fail"):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        default = getattr(limit_left_out, name)
        assert row.split("|")[-2].strip() in (f"`{default}`", f"{default}")
