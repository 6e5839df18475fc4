"""Usage of one process: tallied, batched, sent exactly once."""

from types import SimpleNamespace

import orjson
import pytest

from gateway.call import Call, Reply
from gateway.connections.open import Connections
from gateway.metering.batches import BATCHES_KEPT
from gateway.metering.usage import Usage
from gateway.protocol import Protocol
from gateway.refusals import Reason, Refused
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal

WHO = Principal(consumer="acme", key="k1", tier="gold")


class Stream:
    """Stands where JetStream does; keeps what was published, or is away."""

    def __init__(self):
        self.published = []
        self.is_away = False

    async def publish(self, subject, payload, timeout, headers):
        if self.is_away:
            raise TimeoutError
        self.published.append((subject, headers["Nats-Msg-Id"], orjson.loads(payload)))


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def snapshot():
    return Snapshot.from_documents(
        {
            "tier": [{"name": "gold"}],
            "consumer": [{"name": "acme", "tier": "gold"}],
            "key": [{"id": "k1", "consumer": "acme", "digest": "0"}],
        }
    )


@pytest.fixture
def connections(snapshot):
    return Connections(snapshot)


@pytest.fixture
def usage(connections, snapshot, stream):
    return Usage(SimpleNamespace(process="web-1", kind="web"), connections, snapshot, stream)


def call(protocol=Protocol.HTTP, target="quotes"):
    made = Call(protocol, "/x", "192.0.2.1", target=target)
    made.principal = WHO
    return made


async def test_calls_of_one_kind_come_up_as_one_tally(usage, stream):
    for latency_ms in (1.0, 3.0):
        usage.call_ended(call(), Reply(status=200, bytes_out=10), latency_ms)
    usage.call_ended(call(), Reply(status=429, refused=Refused(Reason.RATE_LIMITED)), 0.1)
    await usage.stop()
    _, message_id, batch = stream.published[0]
    assert message_id == "web-1-1"
    assert batch["stopping"] is True
    ok, refused = sorted(batch["tallies"], key=lambda tally: tally["outcome"])
    assert (ok["outcome"], ok["calls"], ok["bytes_out"], ok["latency_ms_sum"], ok["latency_ms_max"]) == (
        "ok",
        2,
        20,
        4.0,
        3.0,
    )
    assert (refused["outcome"], refused["error_class"], refused["throttled"]) == ("rate-limited", "handshake_limit", 1)


async def test_a_connection_is_tallied_as_it_flows_and_once_in_the_ledger(usage, stream, connections):
    made = call(Protocol.WEBSOCKET)
    connection = connections.open(made, lambda refused: None)
    connection.received(10)
    usage._gather()
    connection.received(5)
    connection.refused(Refused(Reason.RATE_LIMITED))
    connections.closed(connection)
    usage.connection_closed(connection, Reply(status=101, close_code=1000, closed_by="client"))
    await usage.stop()
    batches = [batch for _, _, batch in stream.published]
    tallies = [tally for batch in batches for tally in batch["tallies"]]
    assert sum(tally["messages_in"] for tally in tallies) == 2
    assert sum(tally["bytes_in"] for tally in tallies) == 15
    assert {tally["outcome"]: tally["calls"] for tally in tallies if tally["calls"]} == {"rate-limited": 1, "ok": 1}
    assert [row["id"] for batch in batches for row in batch["opened"]] == [connection.id]
    (closed,) = (row for batch in batches for row in batch["closed"])
    assert (closed["messages_in"], closed["bytes_in"], closed["throttled"], closed["close_code"]) == (2, 15, 1, 1000)
    assert closed["closed_by"] == "client"


async def test_a_revoked_connection_says_so_in_the_ledger(usage, stream, connections, snapshot):
    made = call(Protocol.SSE)
    connection = connections.open(made, lambda refused: None)
    snapshot.apply([("key", "k1", None)])
    usage.connection_closed(connection, Reply(status=200))
    await usage.stop()
    closed = stream.published[0][2]["closed"][0]
    assert (closed["closed_by"], closed["close_code"], closed["error_class"]) == ("gateway", 3000, "revoked")


async def test_what_could_not_be_sent_waits_and_is_sent_in_order(usage, stream):
    stream.is_away = True
    for _ in range(2):
        usage.call_ended(call(), Reply(status=200), 1)
        usage._gather()
        with pytest.raises(TimeoutError):
            await usage._batches.send()
    stream.is_away = False
    await usage.stop()
    assert [message_id for _, message_id, _ in stream.published] == ["web-1-1", "web-1-2", "web-1-3"]


async def test_the_queue_is_bounded_and_what_is_dropped_is_counted(usage, stream):
    for _ in range(BATCHES_KEPT + 3):
        usage.call_ended(call(), Reply(status=200), 1)
        usage._gather()
    await usage.stop()
    assert len(stream.published) == BATCHES_KEPT
    assert stream.published[-1][2]["dropped"] >= 3


async def test_many_records_are_split_into_batches_that_fit_a_message(usage, stream):
    for number in range(1_200):
        usage.call_ended(call(target=f"route-{number}"), Reply(status=200), 1)
    await usage.stop()
    assert [len(batch["tallies"]) for _, _, batch in stream.published] == [500, 500, 200]
    assert [batch["stopping"] for _, _, batch in stream.published] == [False, False, True]
