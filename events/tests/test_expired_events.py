"""Events that expire before a durable subscription gets them."""

import time
from datetime import UTC, datetime

import pytest

from audit.tests.conftest import until
from events.models import DeadLetter
from events.tests.delivering import caught_up
from events.tests.receiver import receiving
from gateway.log.event import rfc3339
from gateway.tests.clock import HOUR_S, Clock

pytestmark = pytest.mark.django_db(transaction=True)


async def publish_expiring(whole):
    at = rfc3339(datetime.fromtimestamp(time.time() + HOUR_S / 2, UTC))
    names = {"specversion": "1.0", "id": "e1", "source": "/till", "type": "sold", "expirytime": at}
    return await whole.publish(
        "old", headers=[(f"ce-{name}".encode(), value.encode()) for name, value in names.items()]
    )


async def test_a_pull_leaves_expired_events_out_and_behind(whole, monkeypatch):
    clock = Clock(monkeypatch)
    subscription = await whole.subscribe(type="pull")
    await publish_expiring(whole)
    ids = await whole.publish("new")
    clock.jump(HOUR_S)
    assert [event["id"] for event in await whole.pull(subscription)] == ids
    await whole.call("POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": ids})
    assert await until(lambda: caught_up(whole, subscription))
    assert await DeadLetter.objects.acount() == 0


async def test_a_webhook_is_sent_no_expired_event(whole, delivery, monkeypatch):
    clock = Clock(monkeypatch)
    is_up = False
    async with receiving(lambda message: 204 if is_up else 500) as receiver:
        schedule = {"retry_schedule_s": [0, 0.2, 0.2], "max_attempts": 3}
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **schedule)
        await publish_expiring(whole)
        await receiver.has(1)
        is_up = True
        clock.jump(HOUR_S)
        await whole.publish("new")
        await until(lambda: caught_up(whole, subscription))
        assert receiver.values == ["old", "new"]
    assert await DeadLetter.objects.acount() == 0
