"""An upstream that answers before it has read a body, and closes: over TLS, too, what it sent is read."""

import asyncio
import socket
import ssl
import threading

import pytest
import uvloop

from gateway.handlers.proxy.tests.upstream.support import certificate_of
from gateway.tests.identity_provider import config
from gateway.upstream.client import UpstreamClient
from gateway.upstream.connection import UpstreamBroken
from gateway.upstream.origin import Origin

REFUSAL = b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nno"
WAIT_S = 20.0


class Refusing:
    """Answers the head of one request once it is told to, and resets the connection, as body bytes are unread."""

    def __init__(self, context):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.context = context
        self.may_answer, self.has_closed = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        accepted, _ = self.listening.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.context.wrap_socket(accepted, server_side=True) as connected:
            connected.recv(100)
            self.may_answer.wait(WAIT_S)
            connected.sendall(REFUSAL)
        self.has_closed.set()


@pytest.fixture
def authority(tmp_path):
    return certificate_of("127.0.0.1", tmp_path)


@pytest.fixture
def upstream(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority[1])
    upstream = Refusing(context)
    yield upstream
    upstream.may_answer.set()
    upstream.thread.join(WAIT_S)
    upstream.listening.close()


async def write_without_end(connection):
    while True:
        await connection.write(bytes(20_000))
        await asyncio.sleep(0)


async def refusal_of(upstream, certificate):
    client = UpstreamClient(config())
    client.tls = ssl.create_default_context(cadata=certificate)
    connection = await client.lend(Origin("127.0.0.1", upstream.listening.getsockname()[1], is_tls=True))
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n"
    connection.begin(head, is_head_request=False, is_whole=False)
    await connection.write(bytes(20_000))
    upstream.may_answer.set()
    # The event loop is held meanwhile, so that the write fails before anything is read.
    assert upstream.has_closed.wait(WAIT_S)
    connection._transport.write(bytes(20_000))
    with pytest.raises(UpstreamBroken):
        await write_without_end(connection)
    assert await connection.head()
    body = b""
    while part := await connection.read():
        body += part
    client.take_back(connection)
    assert not connection.is_usable
    await client.close()
    return connection.status, body


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_answer_that_came_before_a_write_failed_is_read(upstream, authority, new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(refusal_of(upstream, authority[0])) == (413, b"no")
