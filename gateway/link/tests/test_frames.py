"""The frames that NATS sends, cut at any byte: replies to stored messages to a callback, all others to the client."""

import asyncio

import pytest

from gateway.link.client import NatsClient

INBOX = "_INBOX.x.y"
STORED = b'{"stream":"CH_a", "seq":%d}'
DUPLICATE = b'{"stream":"CH_a","domain":"hub", "seq":%d,"duplicate": true}'
FULL = b'{"error":{"code":503,"err_code":10023,"description":"insufficient resources"},"stream":"CH_a","seq":0}'


def message(subject, payload):
    return b"MSG %b 7 %d\r\n%b\r\n" % (subject, len(payload), payload)


@pytest.fixture
def arrived():
    return []


@pytest.fixture
def client(arrived):
    """A client whose messages and replies go to a list, in the order in which they arrive."""
    client = NatsClient()

    async def take(sid, subject, reply, data, headers):
        arrived.append((subject, data))

    client._process_msg = take
    client.expect_stored(INBOX, lambda *reply: arrived.append(reply))
    return client


def feed(client, data, size):
    async def parse():
        for at in range(0, len(data), size):
            await client._ps.parse(data[at : at + size])

    asyncio.run(parse())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 100_000])
def test_replies_and_messages_arrive_in_order_wherever_the_bytes_are_cut(client, arrived, size):
    long_text = b"x" * 70_000
    feed(
        client,
        message(b"_INBOX.x.y.1", STORED % 11)
        + message(b"trades", b"MSG _INBOX.x.y.9 7 3\r\nabc")
        + b"HMSG trades 3 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
        + message(b"_INBOX.x.y.2", DUPLICATE % 12)
        + b"+OK\r\n"
        + message(b"trades", long_text)
        + message(b"_INBOX.x.y.3", STORED % 13),
        size,
    )
    assert arrived == [
        (1, 11, False),
        (b"trades", b"MSG _INBOX.x.y.9 7 3\r\nabc"),
        (b"trades", b"hi"),
        (2, 12, True),
        (b"trades", long_text),
        (3, 13, False),
    ]


@pytest.mark.parametrize(
    "payload",
    [FULL, b"", b'{"stream":"CH_a", "seq":1}\r\nMSG', b'{"stream":"CH_a","seq":1,"batch":"b"}', b"nonsense"],
)
def test_a_reply_in_another_form_goes_to_the_subscription_whole(client, arrived, payload):
    feed(client, message(b"_INBOX.x.y.1", payload) + message(b"_INBOX.x.y.2", STORED % 5), 1000)
    assert arrived == [(b"_INBOX.x.y.1", payload), (2, 5, False)]


@pytest.mark.parametrize("subject", [b"_INBOX.x.y", b"_INBOX.x.yz.1", b"_INBOX.x.y.1.2", b"_INBOXax.y.1"])
def test_a_message_of_another_inbox_is_no_reply(client, arrived, subject):
    feed(client, message(subject, STORED % 5), 1000)
    assert arrived == [(subject, STORED % 5)]


def test_what_a_lost_connection_left_unfinished_is_forgotten(client, arrived):
    feed(client, message(b"_INBOX.x.y.1", STORED % 5)[:-4], 1000)
    client._ps.reset()
    feed(client, message(b"_INBOX.x.y.2", STORED % 6), 1000)
    assert arrived == [(2, 6, False)]


def test_what_follows_an_error_that_ends_the_connection_is_dropped(client, arrived):
    async def fail(text):
        client._ps.reset()

    client._process_err = fail
    feed(client, b"-ERR 'stale connection'\r\n" + message(b"_INBOX.x.y.1", STORED % 5)[:-4], 1000)
    feed(client, message(b"_INBOX.x.y.2", STORED % 6), 1000)
    assert arrived == [(2, 6, False)]
