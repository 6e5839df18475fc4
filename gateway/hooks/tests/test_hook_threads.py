"""Plain hooks that never return hold their own threads, and harm nothing else."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from gateway.hooks.functions import HookFunctions
from gateway.hooks.threads import DeadlineMissed, HookThreads, NoThreadLeft
from gateway.refusals import Refused

TIMEOUT_S = 0.05


@pytest.fixture
def released():
    """An event that ends the hooks of a test which would not return."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hooks():
    return HookFunctions(timeout_s=TIMEOUT_S, threads_each=2)


async def cause_of(call):
    with pytest.raises(Refused) as caught:
        await call
    return caught.value.cause


async def test_a_hook_that_never_returns_holds_one_thread_a_call_until_all_are_held(released):
    threads = HookThreads("blocking", 3)
    for held in (1, 2, 3):
        with pytest.raises(DeadlineMissed):
            await threads.run(released.wait, (), TIMEOUT_S)
        assert threads.held == held
    with pytest.raises(NoThreadLeft):
        await threads.run(released.wait, (), TIMEOUT_S)


async def test_a_thread_is_used_again_once_its_call_returns(released):
    threads = HookThreads("blocking", 1)
    with pytest.raises(DeadlineMissed):
        await threads.run(released.wait, (), TIMEOUT_S)
    released.set()
    async with asyncio.timeout(5):
        while threads.held:
            await asyncio.sleep(0.01)
    assert await threads.run(lambda: "back", (), 5) == "back"


async def test_calls_wait_for_a_thread_and_never_use_more_than_there_may_be():
    threads, running, most = HookThreads("counting", 3), 0, 0
    lock = threading.Lock()

    def count():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    await asyncio.gather(*[threads.run(count, (), 10) for _ in range(30)])
    assert (most, running) == (3, 0)


async def test_a_call_that_missed_its_deadline_while_it_waited_is_never_run(released):
    threads, calls = HookThreads("blocking", 1), []
    first = asyncio.create_task(threads.run(released.wait, (), 1))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineMissed):
        await threads.run(calls.append, (1,), TIMEOUT_S)
    released.set()
    assert await first is True
    await threads.run(calls.append, (2,), 5)
    assert calls == [2]


@pytest.mark.parametrize("spins", [True, False], ids=["spins", "sleeps"])
async def test_a_hook_that_never_returns_is_refused_and_others_are_not(hooks, released, spins):
    def endless():
        while not released.is_set():
            if not spins:
                time.sleep(0.01)

    stuck = hooks.function("mine:endless", endless)
    # While another thread spins, one that becomes ready waits for the interpreter's lock for some milliseconds.
    healthy = HookFunctions(timeout_s=10, threads_each=2).function("mine:healthy", lambda: "well")
    assert [await cause_of(stuck()) for _ in range(4)] == ["function-timeout"] * 2 + ["function-resting"] * 2
    assert stuck.held_threads == 2
    assert stuck.faults == {"function-timeout": 2, "function-resting": 2}
    assert await asyncio.gather(*[healthy() for _ in range(10)]) == ["well"] * 10


def test_policies_that_name_the_same_function_share_its_threads(hooks):
    first = hooks.function("mine:len", len)
    assert hooks.function("mine:len", len) is first
    assert hooks.function("mine:len", max) is not first
    assert HookFunctions(timeout_s=1, threads_each=2).function("mine:len", len) is not first


PROGRAM = """
import asyncio, itertools
from gateway.hooks.functions import HookFunctions
from gateway.refusals import Refused

async def main():
    hook = HookFunctions(timeout_s=0.05, threads_each=2).function("mine:endless", {function})
    for _ in range(3):
        try:
            await hook()
        except Refused as refused:
            print(refused.cause)

asyncio.run(main())
"""


ENDLESS = {
    "spins": "lambda: all(1 for _ in itertools.count())",
    "sleeps": "__import__('threading').Event().wait",
}


@pytest.mark.parametrize("function", ENDLESS.values(), ids=ENDLESS)
def test_a_process_stops_though_a_hook_never_returns(function):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{function}", function)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["function-timeout", "function-timeout", "function-resting"]
