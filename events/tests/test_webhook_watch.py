"""The lag of subscriptions is alerted and shown, and what was deleted is removed."""

import asyncio
from unittest.mock import ANY

import pytest
from nats.js.api import ConsumerConfig
from standardwebhooks import Webhook

from audit.tests.conftest import in_thread, until
from events.tests.receiver import receiving
from gateway.durable.health import read_healths

pytestmark = pytest.mark.django_db(transaction=True)


async def test_who_wants_to_know_is_told_once_that_it_lags_and_once_that_it_has_caught_up(whole, delivery):
    async with receiving() as alerts:
        subscription = await whole.subscribe(type="pull", alert_url=alerts.url, alert_lag_events=3)
        ids = await whole.publish(*range(4))
        (message,) = await alerts.has(1)
        sent = Webhook(subscription["secret"]).verify(message.body, message.headers)
        assert (sent["type"], sent["data"]["lag"]["events"]) == ("subscription.lagging", 4)
        await asyncio.sleep(2.5)
        assert len(alerts.messages) == 1
        await whole.pull(subscription)
        await whole.call("POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": ids})
        message = (await alerts.has(2))[1]
        assert message.parsed["type"] == "subscription.caught-up"


async def test_operators_are_told_how_it_stands_and_what_became_of_its_tries(whole, delivery, api):
    async with receiving(lambda message: 500) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, retry_schedule_s=[0, 600])
        await whole.publish(1, 2)
        await receiver.has(1)
        path = f"/api/v1/subscriptions/{subscription['id']}"
        sent = await until(lambda: in_thread(lambda: lags(api.get(path).json())))
        assert (sent["lag"]["events"], sent["last_error"]["detail"]) == (2, "It answered 500.")
        assert (await in_thread(lambda: api.get("/api/v1/subscriptions/").json()))["results"] == [
            {**sent, "lag": ANY, "last_error": ANY}
        ]
        (attempt,) = (await in_thread(lambda: api.get(f"{path}/attempts").json()))["results"]
        assert (attempt["outcome"], attempt["answer"]["status"]) == ("failed", 500)


def lags(sent):
    return sent["lag"]["events"] == 2 and sent["last_error"] and sent


async def test_what_was_deleted_leaves_nothing_in_the_log(whole, delivery):
    async with receiving() as receiver:
        made = [await whole.subscribe(type="webhook", url=receiver.url), await whole.subscribe(type="pull")]
        await whole.publish(1)
        await receiver.has(1)
        _, js = whole.link
        stream = whole.plane.snapshot.channel("trades")[0].stream
        await until(lambda: watched(whole, made))
        for subscription in made:
            await whole.call("DELETE", f"/v1/subscriptions/{subscription['id']}")
        await until(lambda: nothing_left(js, stream))
        await until(lambda: nothing_said(whole))


async def watched(whole, made):
    return {one["id"] for one in made} == set(await read_healths(whole.link[0]))


async def nothing_said(whole):
    return not await read_healths(whole.link[0])


async def nothing_left(js, stream):
    return not await js.consumers_info(stream)


async def test_readers_of_no_subscription_are_swept(whole, delivery):
    _, js = whole.link
    stream = whole.plane.snapshot.channel("trades")[0].stream
    for name in ("sub_orphan", "foreign"):
        await js.add_consumer(stream, ConsumerConfig(durable_name=name))
    await delivery._watch._sweep()
    assert [info.name for info in await js.consumers_info(stream)] == ["foreign"]
