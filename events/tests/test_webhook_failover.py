"""Webhooks lose nothing when a delivery process or the log is killed, hangs or is emptied."""

import asyncio
import contextlib
import dataclasses

import pytest

from audit.tests.conftest import until
from events.models import DeadLetter
from events.tests.delivering import caught_up, delivering, stands
from events.tests.receiver import receiving
from gateway.concurrency.stopping import stop_tasks
from gateway.delivery.process import DeliveryProcess
from gateway.refusals import Reason, Refused

pytestmark = pytest.mark.django_db(transaction=True)


async def test_by_key_what_is_sent_while_the_log_is_away_is_not_sent_beside_itself(whole, delivery, monkeypatch):
    held = {"a1": asyncio.Event(), "a2": asyncio.Event()}

    async def hold(message):
        await held[message.data].wait()
        return 200

    async with receiving(hold) as receiver:
        subscription = await whole.subscribe(
            type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=4
        )
        for value in held:
            await whole.publish(value, channel="sensors/a/reading")
        worker = await until(lambda: asyncio.sleep(0, delivery.workers.get(subscription["id"])))
        await until(lambda: asyncio.sleep(0, worker._order.in_hand == 2))
        fetch, failed, under_way = delivery.desk.readers.fetch, asyncio.Event(), []

        async def away_once(*arguments):
            if not failed.is_set():
                failed.set()
                raise Refused(Reason.OVERLOADED)
            under_way.append(len(worker._tasks))
            return await fetch(*arguments)

        monkeypatch.setattr("gateway.delivery.worker.RESTART_MAX_S", 0.01)
        monkeypatch.setattr(delivery.desk.readers, "fetch", away_once)
        await failed.wait()
        held["a1"].set()
        await receiver.has(2)
        with contextlib.suppress(TimeoutError):
            await until(lambda: asyncio.sleep(0, under_way), 0.3)  # long enough to begin anew too early
        held["a2"].set()
        await until(lambda: caught_up(whole, subscription))
        await until(lambda: asyncio.sleep(0, under_way))
        assert under_way[0] == 0
        assert list(dict.fromkeys(receiver.values)) == ["a1", "a2"]


async def test_of_two_deliverers_one_is_at_work_and_the_other_takes_over(whole):
    async with receiving() as receiver:
        await whole.subscribe(type="webhook", url=receiver.url)
        async with contextlib.AsyncExitStack() as stack:
            other_place = dataclasses.replace(whole.plane.config, data_dir=whole.plane.config.data_dir / "other")
            first = await stack.enter_async_context(delivering(whole))
            await until(lambda: asyncio.sleep(0, first.is_leading))
            second = await DeliveryProcess.start(dataclasses.replace(other_place, process="second", kind="delivery"))
            stack.push_async_callback(second.stop)
            await whole.publish(*range(30))
            await receiver.has(30)
            assert not second.is_leading
            await first.stop()
            await until(lambda: asyncio.sleep(0, second.is_leading))
            await whole.publish(*range(30, 40))
            await receiver.has(40)
            stack.pop_all().push_async_callback(second.stop)
            await second.stop()
        assert receiver.values == [*range(40)]


async def test_a_deliverer_that_was_killed_loses_nothing(whole):
    held = asyncio.Event()

    async def hold(message):
        await held.wait()
        return 200

    async with receiving(hold) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url)
        first = await DeliveryProcess.start(dataclasses.replace(whole.plane.config, process="first", kind="delivery"))
        await whole.publish(1, 2, 3)
        await receiver.has(1)
        # As SIGKILL leaves it: the effect is there, the acknowledgement is not.
        sends = [task for worker in first.workers.values() for task in worker._tasks]
        await stop_tasks(*first._background, *sends)
        await first.nats.close()
        held.set()
        async with delivering(whole, name="second"):
            await receiver.has(4)
        assert receiver.values == [1, 1, 2, 3]
        await first.stop()


async def test_by_key_what_was_under_way_when_the_deliverer_was_killed_comes_first_again(whole):
    held = asyncio.Event()

    async def hold(message):
        await held.wait()
        return 200

    async with receiving(hold) as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=4)
        first = await DeliveryProcess.start(dataclasses.replace(whole.plane.config, process="first", kind="delivery"))
        for number in range(6):
            for key in "ab":
                await whole.publish(f"{key}{number}", channel=f"sensors/{key}/reading")
        await receiver.has(2)
        # As SIGKILL leaves it: some were under way or in hand, and some were never fetched.
        sends = [task for worker in first.workers.values() for task in worker._tasks]
        await stop_tasks(*first._background, *sends)
        await first.nats.close()
        held.set()
        async with delivering(whole, name="second"):
            await receiver.has(14)
        for key in "ab":
            firsts = dict.fromkeys(value for value in receiver.values if value[0] == key)
            assert list(firsts) == [f"{key}{number}" for number in range(6)]
        await first.stop()


async def test_a_log_that_is_killed_and_comes_back_loses_nothing(whole, delivery, nats_server):
    left = {5: 1, 12: 2}

    def answer(message):
        left[message.data] = left.get(message.data, 0) - 1
        return 500 if left[message.data] >= 0 else 200

    async with receiving(answer) as receiver:
        subscription = await whole.subscribe(
            type="webhook", url=receiver.url, retry_schedule_s=[0, 0.2], max_attempts=9
        )
        await whole.publish(*range(20))
        await receiver.has(4)
        nats_server.kill()
        await asyncio.sleep(0.5)
        nats_server.start()
        await until(lambda: asyncio.sleep(0, {*range(20)} <= {*receiver.values}), 40)
        firsts = list(dict.fromkeys(receiver.values))
        assert firsts == [*range(20)]
        assert await until(lambda: caught_up(whole, subscription))
        assert not await DeadLetter.objects.aexists()


async def test_a_log_that_hangs_for_a_while_loses_nothing(whole, delivery, nats_server):
    async with receiving() as receiver:
        await whole.subscribe(type="webhook", url=receiver.url, channel="sensors/{id}/reading", max_in_flight=4)
        for number in range(12):
            await whole.publish(number, channel=f"sensors/{number % 3}/reading")
        await receiver.has(3)
        nats_server.freeze()
        await asyncio.sleep(2.5)
        nats_server.thaw()
        await until(lambda: asyncio.sleep(0, {*range(12)} <= {*receiver.values}), 40)
        for key in range(3):
            firsts = list(dict.fromkeys(value for value in receiver.values if value % 3 == key))
            assert firsts == sorted(firsts)


async def test_an_emptied_log_is_subscribed_to_anew(whole, delivery, nats_server):
    async with receiving() as receiver:
        subscription = await whole.subscribe(type="webhook", url=receiver.url)
        await whole.publish("before")
        await receiver.has(1)
        await asyncio.to_thread(nats_server.empty)
        await until(lambda: takes(whole, "after"), 40)
        await until(lambda: asyncio.sleep(0, "after" in receiver.values), 40)
        assert (await until(lambda: stands(whole, subscription, "active")))["type"] == "webhook"


async def takes(whole, value):
    status, _ = await whole.call("POST", "/v1/channels/trades/events", value)
    return status == 201
