"""Connectors that run where their client library is missing."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from gateway.concurrency.stopping import stop_tasks
from gateway.connectors import kinds
from gateway.connectors.kinds import INSTALL, KINDS, NotInstalled, find
from gateway.connectors.running import Running
from gateway.snapshot.documents import Connector


@pytest.fixture(autouse=True)
def _no_clients(monkeypatch):
    monkeypatch.setattr(kinds, "find_spec", lambda name: None)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_names_the_command_that_installs_its_client(kind):
    with pytest.raises(NotInstalled, match=INSTALL):
        find(kind, "sink")


async def test_a_running_connector_reports_the_command_as_its_state_and_in_the_log(caplog):
    document = Connector(id="7", name="out", type="kafka", direction="sink", channel="trades", options={})
    snapshot = SimpleNamespace(channels=lambda: [SimpleNamespace(address="trades")])
    connector = Running(SimpleNamespace(snapshot=snapshot), document)
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(connector.run())
        async with asyncio.timeout(2):
            while connector.health.state != "failing":
                await asyncio.sleep(0.01)
        await stop_tasks(task)
    assert INSTALL in connector.health.error
    assert [record for record in caplog.records if INSTALL in record.getMessage()]
