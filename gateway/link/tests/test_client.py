from nats.aio.client import Client

from gateway.link.client import NatsClient

FRAMES = [
    b"HPUB a _I.x.1 12 13\r\nNATS/1.0\r\n\r\n1\r\n",
    b"HPUB a 12 13\r\nNATS/1.0\r\n\r\n1\r\n",
    b"PUB a _I.y.1 1\r\n1\r\n",
]


async def test_only_frames_whose_replies_are_expected_are_dropped_when_the_connection_is_lost(monkeypatch):
    async def nothing(client):
        pass

    monkeypatch.setattr(Client, "_attempt_reconnect", nothing)
    client = NatsClient()
    client._pending = list(FRAMES)
    await client._attempt_reconnect()
    assert client._pending == FRAMES
    client.expect_stored("_I.x", lambda *reply: None)
    await client._attempt_reconnect()
    assert client._pending == FRAMES[1:]
    assert client._pending_data_size == sum(map(len, FRAMES[1:]))
