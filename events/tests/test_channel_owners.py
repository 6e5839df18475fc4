"""Subscriptions and dead letters of addresses that come to belong to another channel."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from audit.tests.conftest import until
from events.letters import redrive
from events.models import Channel, DeadLetter
from events.services import create_channel, delete_channel, update_channel
from events.tests.receiver import receiving

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS, NARROW = "sensors/kitchen/reading", "sensors/kitchen/{what}"


async def owned_by(whole, address):
    async def is_owned():
        return whole.plane.snapshot.channel(ADDRESS)[0].address == address

    await until(is_owned)


async def pulled(whole, subscription):
    events = await whole.pull(subscription, "wait_s=10")
    await whole.call("POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": [event["id"] for event in events]})
    return [event["data"] for event in events]


async def test_a_subscription_follows_its_address_to_the_channel_that_owns_it(whole):
    subscription = await whole.subscribe(type="pull", channel=ADDRESS)
    await whole.publish(1, channel=ADDRESS)
    assert await pulled(whole, subscription) == [1]
    await whole.publish("left", "over", channel=ADDRESS)
    narrow = await sync_to_async(create_channel)(address=NARROW, by="ann")
    await owned_by(whole, NARROW)
    await whole.publish(2, channel=ADDRESS)
    assert await pulled(whole, subscription) == ["left", "over"]
    assert await pulled(whole, subscription) == [2]
    later = await whole.subscribe(type="pull", channel=ADDRESS)
    await sync_to_async(delete_channel)(narrow, by="ann")
    await owned_by(whole, "sensors/{id}/reading")
    await whole.publish(3, channel=ADDRESS)
    assert await pulled(whole, subscription) == [3]
    # Its position is of the other channel: it does not wait until this one has reached that.
    assert await pulled(whole, later) == [3]
    await whole.publish(4, channel=ADDRESS)
    assert await pulled(whole, later) == [4]


async def test_a_subscription_to_all_that_a_channel_has_gets_nothing_of_a_more_specific_one(whole):
    await sync_to_async(create_channel)(address=NARROW, by="ann")
    await owned_by(whole, NARROW)
    wide = await whole.subscribe(type="pull", channel="sensors/{id}/reading")
    narrow = await whole.subscribe(type="pull", channel="sensors/kitchen/+")
    await whole.publish("narrow", channel=ADDRESS)
    await whole.publish("wide", channel="sensors/hall/reading")
    assert await pulled(whole, wide) == ["wide"]
    assert await pulled(whole, narrow) == ["narrow"]


async def test_a_webhook_gets_what_is_left_in_the_earlier_channel_and_then_what_is_new(whole, delivery):
    is_up = asyncio.Event()
    async with receiving(lambda message: 204 if is_up.is_set() else 500) as receiver:
        await whole.subscribe(type="webhook", channel=ADDRESS, url=receiver.url, retry_schedule_s=[0, *[0.2] * 50])
        await whole.publish(1, 2, channel=ADDRESS)
        await receiver.has(1)
        await sync_to_async(create_channel)(address=NARROW, by="ann")
        await owned_by(whole, NARROW)
        await whole.publish(3, 4, channel=ADDRESS)
        is_up.set()
        await until(lambda: ends_with(receiver, 4))
        assert list(dict.fromkeys(receiver.values)) == [1, 2, 3, 4]


async def ends_with(receiver, value):
    return receiver.values[-1:] == [value]


async def test_a_dead_letter_goes_back_to_the_channel_that_owns_its_address(whole):
    wide = await Channel.objects.aget(address="sensors/{id}/reading")
    await sync_to_async(update_channel)(wide, schema={"type": "number"}, on_invalid="dead-letter", by="ann")
    await until(lambda: has_schema(whole))
    status, _ = await whole.call("POST", f"/v1/channels/{ADDRESS}/events", "warm")
    assert status == 422
    await until(DeadLetter.objects.aexists)
    await sync_to_async(create_channel)(address=NARROW, schema={"type": "string"}, by="ann")
    await owned_by(whole, NARROW)
    await sync_to_async(redrive)(await DeadLetter.objects.aget(), by="ann")
    _, history = await whole.call("GET", f"/v1/channels/{ADDRESS}/events")
    assert [(event["channel"], event["data"]) for event in history["results"]] == [(ADDRESS, "warm")]


async def has_schema(whole):
    return whole.plane.snapshot.channel(ADDRESS)[0].schema is not None
