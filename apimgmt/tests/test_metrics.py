"""/metrics, without a database: pytest-django refuses every query of a test that does not ask for one."""

import pytest
from django.test import AsyncClient
from prometheus_client.parser import text_string_to_metric_families

from apimgmt import health
from gateway.link.metrics import Reporter, Scraper
from gateway.link.nats import connect
from gateway.metering.process_metrics import ProcessMetrics


@pytest.fixture
async def metrics(nats_url, monkeypatch):
    scraper = Scraper(lambda: nats_url, within_s=1.5)
    monkeypatch.setattr(health, "scraper", scraper)
    client, _ = await connect(nats_url, "test")
    metrics = ProcessMetrics(lambda: {"mqtt": 3}, lambda: 0)
    reporter = Reporter(client, "mqtt-1-abc", metrics.registry)
    await reporter.start()
    await client.flush()
    yield metrics
    await reporter.stop()
    await scraper.stop()
    await client.close()


async def test_metrics_come_from_the_processes_and_not_from_the_database(metrics):
    metrics.count("mqtt", "ok", (2, 5, 7, 50, 70, 0))
    answer = await AsyncClient().get("/metrics")
    assert answer.status_code == 200
    assert answer["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
        if sample.labels.get("process") == "mqtt-1" and sample.labels.get("protocol", "mqtt") == "mqtt"
    }
    assert found["apimgmt_process_up"] == 1
    assert found["apimgmt_calls_total"] == 2
    assert found["apimgmt_messages_out_total"] == 7
    assert found["apimgmt_open_connections"] == 3
    assert found["process_resident_memory_bytes"] > 0
