from types import SimpleNamespace

from gateway.connectors.process import Connectors
from gateway.snapshot.documents import Connector


class Snapshot:
    def __init__(self, *connectors):
        self.all = list(connectors)

    def connectors(self):
        return self.all

    def channels(self):
        return []

    def on_change(self, listener):
        pass


async def test_a_sink_that_vanished_for_a_moment_knows_that_it_had_a_place(tmp_path):
    sink = Connector(id="7", name="out", type="none", direction="sink", channel="trades", options={})
    plane = SimpleNamespace(snapshot=Snapshot(sink), js=None, config=SimpleNamespace(data_dir=tmp_path))
    connectors = Connectors(plane)
    await connectors._reconcile()
    assert not connectors._running["7"][0].had_reader
    connectors._running["7"][0].had_reader = True
    plane.snapshot.all = []
    await connectors._reconcile()
    assert not connectors._running
    plane.snapshot.all = [sink]
    await connectors._reconcile()
    assert connectors._running["7"][0].had_reader
    await connectors._stop(["7"])
