"""Whatever was projected live, in whatever groups, a replay comes to the same rows, byte for byte."""

import orjson
import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import services
from analytics.models import ConnectionRecord, GatewayProcess, UsageMinute
from analytics.services import LABEL
from analytics.tests.test_services import CLOSED, MADE_AT, NOW, OPENED, batch, tally

pytestmark = pytest.mark.django_db

PROCESSES = st.sampled_from(["web-1", "web-2"])
IDS = st.sampled_from(["c1", "c2", "c3"])
COUNTS = st.integers(0, 10**6)
TALLIES = st.builds(
    tally,
    target=st.sampled_from(["a", "b"]),
    calls=COUNTS,
    latency_ms_sum=st.floats(0, 1e6),
    latency_ms_max=st.floats(0, 1e6),
)
FLOWS = st.builds(
    lambda id_, messages: {
        "id": id_,
        "messages_in": messages,
        "messages_out": 1,
        "bytes_in": 2,
        "bytes_out": 3,
        "throttled": 0,
    },
    IDS,
    COUNTS,
)
BATCHES = st.lists(
    st.builds(
        lambda process, gap, tallies, opened, flowing, closed, stopping: {
            "process": process, "gap": gap, "tallies": tallies, "flowing": flowing, "stopping": stopping,
            "opened": [OPENED | {"id": id_} for id_ in opened], "closed": [CLOSED | {"id": id_} for id_ in closed],
        },
        PROCESSES,
        st.sampled_from([1, 5, 16, 40]),
        st.lists(TALLIES, max_size=3),
        st.lists(IDS, max_size=2, unique=True),
        st.lists(FLOWS, max_size=2, unique_by=lambda flow: flow["id"]),
        st.lists(IDS, max_size=1),
        st.integers(0, 9).map(lambda number: number == 0),
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


def batches_of(drawn):
    """Set the instant of each batch, each this many seconds after the one before."""
    at = NOW.timestamp()
    for one in drawn:
        at += one["gap"]
        yield batch(**{name: value for name, value in one.items() if name != "gap"}, at=at)


def rows():
    usage = [{name: row[name] for name in row if name != "id"} for row in UsageMinute.objects.order_by(*LABEL).values()]
    ledger = list(ConnectionRecord.objects.order_by("id").values())
    return orjson.dumps([usage, ledger, list(GatewayProcess.objects.order_by("name").values())])


def projected(batches, cuts):
    """Project batches in groups that end at the cuts, into empty tables; processes are given up between them."""
    with transaction.atomic():
        numbered = list(enumerate(batches, start=1))
        for start, end in zip([0, *cuts], [*cuts, len(numbered)], strict=True):
            group = numbered[start:end]
            if group:
                assert services.project(group, MADE_AT, after=start)
        services.close_lost(NOW.replace(year=2027))
        found = rows()
        transaction.set_rollback(True)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(BATCHES, st.data())
def test_a_replay_comes_to_the_same_bytes(drawn, data):
    batches = list(batches_of(drawn))
    live, again = (sorted(data.draw(st.sets(st.integers(0, len(batches)), max_size=4))) for _ in range(2))
    assert projected(batches, live) == projected(batches, again)


def test_a_process_that_comes_back_after_it_was_given_up_is_projected_as_a_replay_would():
    first = batch(opened=[OPENED])
    flow = {"id": "c1", "messages_in": 9, "messages_out": 0, "bytes_in": 0, "bytes_out": 0, "throttled": 0}
    late = batch(at=NOW.timestamp() + 60, flowing=[flow])
    replayed = projected([first, late], [])
    with transaction.atomic():
        assert services.project([(1, first)], MADE_AT, after=0)
        assert services.close_lost(NOW.replace(second=30)) == 1
        assert ConnectionRecord.objects.get().closed_at == NOW
        assert services.project([(2, late)], MADE_AT, after=1)
        services.close_lost(NOW.replace(year=2027))
        assert rows() == replayed
        transaction.set_rollback(True)
