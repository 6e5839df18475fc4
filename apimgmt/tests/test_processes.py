import asyncio

from apimgmt.launcher import processes


async def test_a_part_that_fails_or_ends_begins_again_and_the_others_do_not_notice(monkeypatch):
    monkeypatch.setattr(processes, "RESTART_S", 0.001)
    stop = asyncio.Event()
    begun = {"failing": 0, "ending": 0, "steady": 0}

    async def failing(client, js, stop):
        begun["failing"] += 1
        raise RuntimeError("a fault")

    async def ending(client, js, stop):
        begun["ending"] += 1

    async def steady(client, js, stop):
        begun["steady"] += 1
        await stop.wait()

    parts = [asyncio.create_task(processes.kept_running(part, None, None, stop)) for part in (failing, ending, steady)]
    while begun["failing"] < 3 or begun["ending"] < 3:
        await asyncio.sleep(0.001)
    stop.set()
    await asyncio.gather(*parts)
    assert begun["steady"] == 1
