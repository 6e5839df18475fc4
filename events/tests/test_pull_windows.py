"""What a pull takes of a backlog: what fits its window, at once, each event once."""

import asyncio
import contextlib

import pytest
from asgiref.sync import sync_to_async

from events.models import DeadLetter
from gateway.peer import ClientGone

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(("window", "limit", "wait_s"), [(2, 100, 5), (2, 2, 5), (3, 1, 0), (5, 100, 0), (100, 4, 5)])
async def test_a_backlog_is_returned_at_once_and_each_event_once(whole, window, limit, wait_s):
    """nats-io/nats-server#7680, #6093: a request for more than the window holds ended when its ack wait did."""
    subscription = await whole.subscribe(type="pull", max_in_flight=window, ack_wait_s=1, max_attempts=3)
    ids, seen = await whole.publish(*range(10)), []
    while len(seen) < len(ids):
        pulled = await whole.pull(subscription, f"limit={limit}&wait_s={wait_s}")
        assert [(event["id"], event["delivery"]["attempt"]) for event in pulled] == [
            (id_, 1) for id_ in ids[len(seen) :][: min(window, limit)]
        ]
        seen += [event["id"] for event in pulled]
        await whole.call("POST", f"/v1/subscriptions/{subscription['id']}/ack", {"ids": seen})
    assert await sync_to_async(DeadLetter.objects.count)() == 0


async def test_a_pull_that_waits_on_a_full_window_uses_up_no_attempts(whole):
    """nats-io/nats-server#7680: what was not acknowledged came twice in one answer, and was dead afterwards."""
    subscription = await whole.subscribe(type="pull", max_in_flight=2, ack_wait_s=1, max_attempts=2)
    ids, attempts = await whole.publish(*range(4)), dict.fromkeys(range(4), 0)
    for query in ("", "wait_s=4", "wait_s=4"):
        pulled = await whole.pull(subscription, query)
        assert len({event["id"] for event in pulled}) == len(pulled) > 0
        for event in pulled:
            attempts[event["data"]] += 1
            assert event["delivery"]["attempt"] == attempts[event["data"]]
    assert attempts[2] == attempts[3] == 0
    assert min(event["id"] for event in pulled) in ids[:2]


async def test_an_event_that_is_rejected_during_another_pull_is_in_its_answer_once(whole):
    subscription = await whole.subscribe(type="pull", max_in_flight=3, max_attempts=100)
    path = f"/v1/subscriptions/{subscription['id']}"
    ids = await whole.publish(*range(6))
    await whole.pull(subscription, "limit=1")
    for _ in range(10):
        pulls = [asyncio.create_task(whole.pull(subscription, "wait_s=1")) for _ in range(2)]
        await asyncio.sleep(0.02)
        await whole.call("POST", f"{path}/nack", {"ids": ids})
        for pulled in await asyncio.gather(*pulls):
            assert len({event["id"] for event in pulled}) == len(pulled)
        await whole.call("POST", f"{path}/nack", {"ids": ids})


async def test_an_event_that_arrives_after_the_waiting_client_left_is_pulled_at_once_as_new(whole):
    subscription = await whole.subscribe(type="pull", max_attempts=1)
    path, left = f"/v1/subscriptions/{subscription['id']}/events", asyncio.Event()
    waiting = asyncio.create_task(whole.call("GET", f"{path}?wait_s=20", left=left))
    await asyncio.sleep(0.3)
    left.set()
    ids = await whole.publish("late")
    with contextlib.suppress(ClientGone, IndexError):
        await waiting
    (event,) = await whole.pull(subscription, "wait_s=5")
    assert (event["id"], event["delivery"]["attempt"]) == (ids[0], 1)
