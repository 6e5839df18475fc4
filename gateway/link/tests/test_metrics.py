"""Metrics of several processes, gathered over a real NATS."""

import asyncio
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from gateway.link.metrics import ANNOUNCE_S, Reporter, Scraper, exposition, merged
from gateway.link.nats import connect

WITHIN_S = 1.5
"""Longer than in production, so that a busy machine decides no test."""
HOST = socket.gethostname()


def registry(calls):
    made = CollectorRegistry()
    Counter("apimgmt_calls", "Calls.", ("protocol",), registry=made).labels("http").inc(calls)
    Gauge("apimgmt_open_connections", "Open.", registry=made).set(1)
    return made


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(process, **labels):
    return tuple(sorted({"host": HOST, "process": process, **labels}.items()))


async def unreported(message):
    pass


@pytest.fixture
async def client(nats_url):
    client, _ = await connect(nats_url, "test")
    yield client
    await client.close()


@pytest.fixture
async def scraper(nats_url):
    scraper = Scraper(lambda: nats_url, within_s=WITHIN_S)
    yield scraper
    await scraper.stop()


def test_samples_of_one_metric_are_one_group_whatever_process_they_are_of():
    texts = [exposition(registry(calls), {"process": name}) for name, calls in (("web-1", 3), ("web-2", 4))]
    text = merged(texts)
    assert text.count("# TYPE apimgmt_calls_total counter") == 1
    lines = [line for line in text.splitlines() if line.startswith("apimgmt_calls_total")]
    assert lines == [
        'apimgmt_calls_total{process="web-1",protocol="http"} 3.0',
        'apimgmt_calls_total{process="web-2",protocol="http"} 4.0',
    ]
    assert text.index(lines[1]) - text.index(lines[0]) == len(lines[0]) + 1
    assert "_created" not in text


async def test_a_scrape_has_the_figures_of_every_process(client, scraper):
    reporters = [Reporter(client, f"web-{number}-abc", registry(number)) for number in (1, 2)]
    for reporter in reporters:
        await reporter.start()
    await client.flush()
    found = samples(await scraper.text())
    for number in (1, 2):
        assert found["apimgmt_calls_total", of(f"web-{number}", protocol="http")] == number
        assert found["apimgmt_process_up", of(f"web-{number}")] == 1
    assert found["apimgmt_nats_up", ()] == 1
    for reporter in reporters:
        await reporter.stop()


async def test_a_process_that_does_not_report_in_time_is_down_until_it_says_that_it_ends(client, scraper, nats_url):
    await scraper.text()
    hanging, _ = await connect(nats_url, "hanging")
    reporter = Reporter(hanging, "mqtt-1-abc", registry(1))
    reporter._report = unreported
    await reporter.start()
    await asyncio.sleep(0.1)
    began_at = asyncio.get_running_loop().time()
    found = samples(await scraper.text())
    assert asyncio.get_running_loop().time() - began_at < WITHIN_S + 0.5
    assert found["apimgmt_process_up", of("mqtt-1")] == 0
    await reporter.stop()
    await asyncio.sleep(0.1)
    assert ("apimgmt_process_up", of("mqtt-1")) not in samples(await scraper.text())
    await hanging.close()


async def test_a_restarted_process_takes_the_place_of_the_run_that_was_killed(client, scraper):
    await scraper.text()
    killed = Reporter(client, "web-1-aaa", registry(5))
    await killed._announce()
    started = Reporter(client, "web-1-bbb", registry(1))
    await started.start()
    await client.flush()
    found = samples(await scraper.text())
    assert [value for (name, _), value in found.items() if name == "apimgmt_process_up"] == [1]
    assert found["apimgmt_calls_total", of("web-1", protocol="http")] == 1
    await started.stop()


async def test_a_scrape_ends_early_once_every_announced_process_has_reported(client, scraper, monkeypatch):
    reporter = Reporter(client, "web-1-abc", registry(1))
    await reporter.start()
    await scraper.text()
    scraper._listens_since -= ANNOUNCE_S + 2 * WITHIN_S
    await reporter._announce()
    await asyncio.sleep(0.1)
    began_at = asyncio.get_running_loop().time()
    assert samples(await scraper.text())["apimgmt_process_up", of("web-1")] == 1
    assert asyncio.get_running_loop().time() - began_at < WITHIN_S / 2
    await reporter.stop()


async def test_a_scrape_answers_without_nats(unused_port):
    scraper = Scraper(lambda: f"nats://127.0.0.1:{unused_port}")
    try:
        assert samples(await scraper.text()) == {("apimgmt_nats_up", ()): 0}
    finally:
        await scraper.stop()


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]
