"""A source keeps the order of its broker where some records of a batch are not stored at first."""

from types import SimpleNamespace

import pytest

from gateway.connectors import running as connecting
from gateway.connectors.broker import Record
from gateway.connectors.running import Running
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Connector


class Publisher:
    """Refuses each record once at the steps that a test names."""

    def __init__(self, *, at_admission=(), at_storing=(), reason=Reason.OVERLOADED):
        self.left = {"admit": list(at_admission), "store": list(at_storing)}
        self.reason = reason
        self.admitted, self.stored = [], []

    def refuse_once(self, step, value):
        if value in self.left[step]:
            self.left[step].remove(value)
            raise Refused(self.reason)

    async def admit(self, call, publication):
        value = int(publication.data)
        self.refuse_once("admit", value)
        self.admitted.append(value)
        return SimpleNamespace(value=value, channel=SimpleNamespace(address="in"))

    async def store(self, call, admitted):
        self.refuse_once("store", admitted.value)
        self.stored.append(admitted.value)


async def publish(publisher, monkeypatch):
    monkeypatch.setattr(connecting, "RETRY_S", 0.001)
    document = Connector(id="1", name="in", type="none", direction="source", channel="in", options={})
    connector = Running(SimpleNamespace(publisher=publisher), document)
    connector.letters = []

    async def store_dead_letter(address, event, reason, detail):
        connector.letters.append(reason)

    monkeypatch.setattr(connector, "_store_dead_letter", store_dead_letter)
    monkeypatch.setattr(connector, "_dead_event", lambda record: None)
    await connector._publish(connector._call(), [Record(id="", data=b"%d" % number) for number in range(6)])
    return connector


@pytest.mark.parametrize("reason", sorted(connecting.TRANSIENT))
async def test_a_record_that_is_not_admitted_holds_up_those_behind_it(monkeypatch, reason):
    publisher = Publisher(at_admission=[2, 2, 4], reason=reason)
    await publish(publisher, monkeypatch)
    assert publisher.stored == publisher.admitted == list(range(6))


async def test_what_was_stored_behind_a_record_that_was_not_is_stored_after_it_once_more(monkeypatch):
    publisher = Publisher(at_storing=[2, 5])
    await publish(publisher, monkeypatch)
    assert publisher.stored == [0, 1, 3, 4, 2, 3, 4, 5]


async def test_a_record_that_can_never_be_stored_holds_up_nothing_and_is_buried_once(monkeypatch):
    publisher = Publisher(at_admission=[3], reason=Reason.TOO_LARGE)
    publisher.left["store"] = []
    connector = await publish(publisher, monkeypatch)
    assert (publisher.stored, connector.letters, connector.health.buried) == ([0, 1, 2, 4, 5], ["too-large"], 1)
