import pytest

from audit.tests.conftest import link, nats_server
from jobs import registry
from jobs.lost import LostJobs

__all__ = ["link", "nats_server"]


@pytest.fixture
def job_type(monkeypatch):
    """Registers types of job for one test."""
    monkeypatch.setattr(registry, "_types", dict(registry._types))

    def register(name, run):
        registry.job_type(name, title=name, schema={"type": "object"})(run)

    return register


@pytest.fixture
def document():
    """What the data plane lays down for an accepted job; give what differs."""

    def make(**changes):
        return {
            "id": "j1",
            "type": "work",
            "consumer": "acme",
            "key": "k",
            "state": "queued",
            "input": {"a": 1},
            "body_hash": "00",
            "submitted_at": 1_795_000_000.5,
            "traceparent": "",
        } | changes

    return make


@pytest.fixture(autouse=True)
def data_dir(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    return tmp_path


@pytest.fixture
def lost_jobs():
    return LostJobs()
