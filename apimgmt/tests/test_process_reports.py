"""What processes without a data plane report to /metrics."""

from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from apimgmt.process_reports import ProcessReports, TaskMetrics, own_registry
from gateway.link.metrics import Scraper

TASK = SimpleNamespace(name="jobs.run")


def samples(text, process):
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("process") == process and sample.labels.get("le", "+Inf") == "+Inf"
    }


async def test_a_process_without_an_event_loop_reports_what_its_tasks_came_to(nats_url):
    registry = own_registry()
    tasks = TaskMetrics(registry)
    tasks.begins(task_id="1")
    tasks.ends(task_id="1", task=TASK, state="SUCCESS")
    tasks.ends(task_id="never begun here", task=TASK, state="SUCCESS")
    reports = ProcessReports("worker-1", nats_url, registry)
    reports.start()
    scraper = Scraper(lambda: nats_url, within_s=1.5)
    try:
        found = {}
        while not found.get("apimgmt_process_up"):
            found = samples(await scraper.text(), "worker-1")
    finally:
        await scraper.stop()
        reports.stop()
    assert found["apimgmt_tasks_total"] == 2
    assert found["apimgmt_task_duration_seconds_count"] == 1
    assert found["process_resident_memory_bytes"] > 0


def test_a_process_that_ends_before_nats_is_there_does_not_wait_for_it():
    reports = ProcessReports("worker-1", "nats://127.0.0.1:1", own_registry())
    reports.start()
    reports.stop()
    assert not reports.is_alive()
