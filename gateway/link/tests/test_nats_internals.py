"""The names of nats-py that are no public interface and that :mod:`gateway.link.client` builds on.

nats-py is pinned to one version; whoever raises the pin learns here which names are gone.
"""

import inspect
from importlib.metadata import version

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser


def test_the_version_is_the_one_that_was_read():
    assert version("nats-py") == "2.16.0"


def test_the_client_has_what_ours_writes_through_and_parses_with():
    client = Client()
    assert type(client._ps) is Parser
    assert (client._pending, client._pending_data_size, client._max_pending_size) == ([], 0, 0)
    assert client._flush_queue is None
    flusher, reader = inspect.getsource(Client._flusher), inspect.getsource(Client._read_loop)
    assert "self._flush_queue.get()" in flusher
    assert "self._transport.writelines(self._pending[:])" in flusher
    assert "self._ps.parse(b)" in reader
    reconnecting = inspect.getsource(Client._attempt_reconnect)
    lost, restored = inspect.getsource(Client._process_op_err), reconnecting.index('self.stats["reconnects"] += 1')
    assert lost.index("self._status = Client.RECONNECTING") < lost.index("self._attempt_reconnect()")
    assert restored < reconnecting.index("self._transport.write(sub_cmd)") < reconnecting.index("self._flush_pending()")


def test_the_parser_says_whether_it_waits_for_the_rest_of_a_frame():
    parser = Parser()
    assert (parser.buf, parser.state) == (b"", AWAITING_CONTROL_LINE)
    assert inspect.iscoroutinefunction(parser.parse)
