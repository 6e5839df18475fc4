"""Webhooks stop and continue with their endpoint, their key, their secret and their limits."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from standardwebhooks import Webhook, WebhookVerificationError

from audit.tests.conftest import until
from events.models import DeadLetter, Subscription
from events.tests.delivering import FAST, caught_up, is_behind, shown, stands
from events.tests.receiver import receiving
from keys.models import Key
from keys.services import revoke_key

pytestmark = pytest.mark.django_db(transaction=True)


async def test_410_ends_it_and_it_can_begin_again(whole, delivery):
    answers = [410, 200]
    async with receiving(lambda message: answers.pop(0)) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        await whole.publish("wanted later")
        await until(lambda: stands(whole, subscription, "ended", "endpoint-gone"))
        assert len(receiver.messages) == 1
        path = f"/v1/subscriptions/{subscription['id']}"
        assert (await whole.call("PATCH", path, {"max_attempts": 3}))[0] == 400
        assert (await whole.call("PATCH", path, {"state": "active"}))[0] == 200
        await receiver.has(2)
        assert receiver.values == ["wanted later"] * 2


async def test_both_secrets_are_good_during_rotation_and_the_old_one_no_longer_after(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        path = f"/v1/subscriptions/{subscription['id']}/rotate"
        status, rotated = await whole.call("POST", path, {"overlap_s": 3600})
        assert status == 201
        assert rotated["secret"] != subscription["secret"]
        await until(lambda: knows_generation(delivery, subscription, 2))
        await whole.publish(1)
        (message,) = await receiver.has(1)
        for secret in (subscription["secret"], rotated["secret"]):
            Webhook(secret).verify(message.body, message.headers)
        _, last = await whole.call("POST", path, {"overlap_s": 0})
        await until(lambda: knows_generation(delivery, subscription, 3))
        await whole.publish(2)
        message = (await receiver.has(2))[1]
        Webhook(last["secret"]).verify(message.body, message.headers)
        for secret in (subscription["secret"], rotated["secret"]):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(message.body, message.headers)
        row = await Subscription.objects.aget()
        assert "whsec_" not in str(row.__dict__) + str(delivery.snapshot.subscription(row.id))


async def knows_generation(delivery, subscription, generation):
    known = delivery.snapshot.subscription(subscription["id"])
    return known is not None and known.secret_generation == generation


async def test_a_dead_endpoint_is_paused_probed_and_resumed(whole, delivery):
    is_up = False
    async with receiving(lambda message: 200 if is_up else 503) as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        ids = await whole.publish("dies", "waits", "too")
        await until(lambda: stands(whole, subscription, "paused", "endpoint-failing"))
        assert await until(lambda: is_behind(whole, subscription))
        is_up = True
        await until(lambda: stands(whole, subscription, "active"))
        assert await until(lambda: caught_up(whole, subscription))
        assert receiver.values[-1] == "too"
        assert ids


async def test_what_its_owner_paused_is_not_sent_until_it_is_resumed(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        path = f"/v1/subscriptions/{subscription['id']}"
        await whole.call("PATCH", path, {"state": "paused"})
        await until(lambda: asyncio.sleep(0, delivery.snapshot.subscription(subscription["id"]).state == "paused"))
        await whole.publish(1)
        await asyncio.sleep(0.5)
        assert not receiver.messages
        await whole.call("PATCH", path, {"state": "active"})
        await receiver.has(1)


async def test_a_revoked_key_stops_delivery_until_another_key_takes_over(whole, delivery):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        await whole.publish(1)
        await receiver.has(1)
        key = await Key.objects.aget(consumer__name="acme")
        _, whole.keys["again"] = await sync_to_async(_issue_like)(key)
        await sync_to_async(revoke_key)(key, reason="leaked", by="test")
        await until(lambda: is_revoked(whole, delivery, key.id))
        await whole.publish(2, by="bolt")
        await until(lambda: paused_for(whole, subscription, "key-revoked"))
        await asyncio.sleep(0.5)
        assert receiver.values == [1]
        status, answer = await whole.call("PATCH", f"/v1/subscriptions/{subscription['id']}", {}, by="again")
        assert (status, answer["state"]) == (200, "active")
        await receiver.has(2)
        assert receiver.values == [1, 2]


def _issue_like(key):
    from keys.services import issue_key

    return issue_key(consumer=Key.objects.with_consumer().get(id=key.id).consumer, scopes=key.scopes, by="test")


async def is_revoked(whole, delivery, key_id):
    known = delivery.snapshot.key(key_id)
    other = whole.plane.snapshot.key(key_id)
    return known.revoked_at is not None and other.revoked_at is not None


async def paused_for(whole, subscription, reason):
    _, answer = await whole.call("GET", f"/v1/subscriptions/{subscription['id']}", by="again")
    return (answer["state"], answer["state_reason"]) == ("paused", reason)


async def test_limits_of_the_consumer_hold_messages_back(whole, delivery):
    from consumers.models import Tier
    from consumers.services import update_tier

    tier = await Tier.objects.aget(name="free")
    limits = [{"metric": "messages_out", "amount": 2, "per": 3600}]
    await sync_to_async(update_tier)(tier, limits=limits, by="test")
    await until(lambda: asyncio.sleep(0, len(delivery.snapshot._documents["tier"]["free"].limits) > 1))
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url, **FAST)
        await whole.publish(1, 2, 3)
        await receiver.has(2)
        await asyncio.sleep(1.5)
        assert receiver.values == [1, 2]
        assert (await shown(whole, subscription))["lag"]["events"] == 1
        assert not await DeadLetter.objects.aexists()
