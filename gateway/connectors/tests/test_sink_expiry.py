"""A sink writes no event that has expired."""

import time
from types import SimpleNamespace

from gateway.connectors.running import Running
from gateway.log.event import Event
from gateway.snapshot.documents import Connector


class Sink:
    """Keeps what is written to it."""

    def __init__(self):
        self.written = []

    async def write(self, events):
        self.written.append([event.id for event in events])


def event(number, expires_in_s=None):
    expires_at = None if expires_in_s is None else time.time() + expires_in_s
    return Event("out", "out", number, "", b"1", expires_at=expires_at)


async def test_expired_events_are_not_written_and_hold_up_nothing():
    document = Connector(id="1", name="out", type="none", direction="sink", channel="out", options={})
    connector, sink = Running(SimpleNamespace(), document), Sink()
    await connector._write(sink, [event(1), event(2, -1), event(3, 3600)])
    await connector._write(sink, [event(4, -1)])
    assert sink.written == [[1, 3]]
