import asyncio
import gc
import math

import pytest

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


@pytest.fixture
def collector():
    """Put the collector's setting back after the test."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_a_serving_process_made_to_start_is_not_collected_again(collector):
    gc.unfreeze()
    served_with = []
    processes.serve_without_long_collections(lambda: served_with.append((gc.get_freeze_count(), gc.get_threshold())))
    ((frozen, thresholds),) = served_with
    assert frozen > 10_000
    assert thresholds == processes.COLLECTED


def test_a_collection_that_is_not_full_has_fifty_thousand_objects_at_most_and_full_ones_are_rare():
    assert math.prod(processes.COLLECTED[:2]) <= 50_000
    assert math.prod(processes.COLLECTED) >= 50_000_000
