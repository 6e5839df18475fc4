"""Sessions of MQTT in the store that all hosts share."""

import pytest

from gateway.durable.mqtt_sessions import MqttSessions, TakenOver
from gateway.link.nats import MQTT_SESSIONS_STREAM, connect, ensure_infrastructure
from gateway.log.event_log import EventLog
from gateway.refusals import Reason, Refused


@pytest.fixture
async def sessions(nats_server):
    client, js = await connect(nats_server.url, "test")
    await ensure_infrastructure(js)
    await js.purge_stream(MQTT_SESSIONS_STREAM)
    log = EventLog(client, js)
    await log.start()
    yield MqttSessions(client, js, log)
    await log.stop()
    await client.close()


async def claimed(sessions, holder="1", *, is_clean=False):
    return await sessions.claim("acme", "till", holder, is_clean=is_clean)


async def test_what_was_saved_is_there_for_the_next_connection(sessions):
    first = await claimed(sessions)
    assert not first.is_resumed
    before = first.identity(5), first.identity(6)
    first.uses.end(5)
    await first.save()
    second = await claimed(sessions, "2")
    assert second.is_resumed
    assert second.identity(6) == before[1]
    assert second.identity(5) not in before


async def test_a_clean_start_has_other_identities(sessions):
    first = await claimed(sessions)
    second = await claimed(sessions, "2", is_clean=True)
    assert (second.is_resumed, second.identity(5)) != (True, first.identity(5))
    await sessions.forget("acme", "till")
    third = await claimed(sessions, "3")
    assert not third.is_resumed
    assert third.identity(5) not in (first.identity(5), second.identity(5))


async def test_an_older_connection_saves_nothing_over_the_state_of_the_newer_one(sessions):
    first = await claimed(sessions)
    second = await claimed(sessions, "2")
    with pytest.raises(TakenOver):
        await first.save()
    await second.save()


async def test_a_record_that_expired_is_written_again(sessions):
    first = await claimed(sessions)
    await sessions.forget("acme", "till")
    first.uses.end(5)
    await first.save()
    assert (await claimed(sessions, "2")).identity(5) == first.identity(5)


async def test_a_write_that_was_stored_without_a_reply_is_no_take_over(sessions, monkeypatch):
    first = await claimed(sessions)
    write = sessions.write

    async def unheard(*arguments):
        await write(*arguments)
        raise Refused(Reason.OVERLOADED)

    monkeypatch.setattr(sessions, "write", unheard)
    with pytest.raises(Refused):
        await first.save()
    monkeypatch.setattr(sessions, "write", write)
    await first.save()


async def test_while_nats_is_away_a_claim_is_refused_at_once_after_the_first(sessions, nats_server):
    first = await claimed(sessions)
    nats_server.freeze()
    try:
        for attempt in (claimed(sessions, "2"), first.save(), sessions.forget("acme", "till")):
            with pytest.raises(Refused) as refused:
                await attempt
            assert refused.value.reason is Reason.OVERLOADED
    finally:
        nats_server.thaw()
