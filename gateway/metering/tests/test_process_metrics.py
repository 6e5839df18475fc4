"""The counters and histograms of one process."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.call import Reply
from gateway.metering.process_metrics import OUTCOMES_MAX, ProcessMetrics
from gateway.metering.tests.test_usage import call, connections, snapshot, stream, usage
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused

__all__ = ["connections", "snapshot", "stream", "usage"]


def read(metrics):
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_calls_are_counted_by_protocol_and_outcome_and_refusals_by_reason(usage):
    usage.call_ended(call(), Reply(status=200, bytes_out=10), 3.0)
    usage.call_ended(call(), Reply(status=401, refused=Refused(Reason.UNAUTHENTICATED, cause="key-unknown")), 0.5)
    usage._gather()
    found = read(usage.metrics)
    assert found["apimgmt_calls_total", "ok", "http"] == 1
    assert found["apimgmt_bytes_out_total", "ok", "http"] == 10
    assert found["apimgmt_calls_total", "key-unknown", "http"] == 1
    assert found["apimgmt_refusals_total", "http", "unauthenticated"] == 1


async def test_a_message_refused_inside_a_connection_is_a_refusal(usage, connections):
    connection = connections.open(call(Protocol.MQTT), lambda refused: None)
    connection.refused(Refused(Reason.RATE_LIMITED))
    usage._gather()
    found = read(usage.metrics)
    assert found["apimgmt_refusals_total", "mqtt", "rate-limited"] == 1
    assert found["apimgmt_throttled_total", "ok", "mqtt"] == 1
    assert found["apimgmt_open_connections", "mqtt"] == 1
    assert found["apimgmt_open_connections", "http"] == 0


async def test_latencies_are_a_cumulative_histogram_in_seconds(usage):
    for latency_ms in (0.5, 1.0, 3.0, 60_000.0):
        usage.call_ended(call(), Reply(status=200), latency_ms)
    found = read(usage.metrics)
    name = "apimgmt_call_duration_seconds"
    assert found[f"{name}_bucket", "0.001", "http"] == 2
    assert found[f"{name}_bucket", "0.005", "http"] == 3
    assert found[f"{name}_bucket", "30", "http"] == 3
    assert found[f"{name}_bucket", "+Inf", "http"] == found[f"{name}_count", "http"] == 4
    assert found[f"{name}_sum", "http"] == 60.0045


def test_outcomes_without_end_end_as_other():
    metrics = ProcessMetrics(dict, lambda: 0)
    for number in range(2 * OUTCOMES_MAX):
        metrics.count("http", f"cause-{number}", (1, 0, 0, 0, 0, 0))
    found = read(metrics)
    assert sum(1 for name, *_ in found if name == "apimgmt_calls_total") == OUTCOMES_MAX + 1
    assert found["apimgmt_calls_total", "other", "http"] == OUTCOMES_MAX


async def test_what_analytics_will_lack_is_counted(usage, stream):
    usage.metrics.dropped()
    usage._enqueue([], 1.0, is_stopping=False)
    found = read(usage.metrics)
    assert found["apimgmt_usage_dropped_total",] == 1
    assert found["apimgmt_usage_batches_waiting",] == 1
