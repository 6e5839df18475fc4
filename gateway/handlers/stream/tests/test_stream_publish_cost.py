"""What a publish on ``/v1/stream`` costs, in counts: they do not depend on the machine."""

from gateway.handlers.stream.tests.stream_client import connected
from gateway.tests.counting import counted_tasks


async def test_publishes_are_stored_and_answered_in_order_without_a_task_for_each(plane):
    async with connected(plane) as wire:
        wire.say({"type": "publish", "channel": "trades", "ref": "first", "data": 0})
        await wire.heard("published")
        with counted_tasks() as tasks:
            for number in range(300):
                wire.say({"type": "publish", "channel": "trades", "ref": str(number), "data": number})
            answers = [await wire.heard("published") for _ in range(300)]
        assert [answer["ref"] for answer in answers] == [str(number) for number in range(300)]
        # Reads with a deadline of the test make a task each, and nothing else does.
        assert {name for name in tasks if "publish" in name.lower() or "store" in name.lower()} == set()
        assert [name for name in tasks if name != "Queue.get"] == []
