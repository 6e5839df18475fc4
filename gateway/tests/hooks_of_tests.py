"""Functions that policies of the tests name: some do as they should."""

import asyncio
import threading
import time

from gateway.hooks.api import DROP, Answer, Refuse

CALLS = []


def seen(call, request, options):
    CALLS.append((call, request, options))


def changed(call, request, options):
    request.headers["x-region"] = call.principal.metadata.get("region", "eu")
    request.headers["authorization"] = "Bearer of-the-upstream"
    del request.headers["x-secret"]
    if request.body is not None:
        request.json = request.json | {"by": call.principal.consumer} | options


async def serve_requests(call, request, options):
    await asyncio.sleep(0)
    return Answer(402, {"pay": call.principal.tier}, {"x-why": "because"})


async def refusing(call, request, options):
    raise Refuse("forbidden", "Not today.")


def refusing_plainly(call, request, options):
    return Refuse("rate-limited", "Later.", retry_after_s=7)


def answer_changed(call, answer, options):
    answer.headers["x-seen"] = str(answer.status)
    if answer.body is not None:
        answer.json = {"wrapped": answer.json}


def answer_of_its_own(call, answer, options):
    return Answer(503, "closed", {"retry-after": "5"})


def message(call, message, options):
    said = message.json if message.data[:1] in ("{", b"{") else None
    if said == {"drop": True}:
        return DROP
    if said == {"refuse": True}:
        return Refuse("invalid-payload", "No.")
    if said is not None:
        message.json = said | {message.direction: call.route}
    return None


def raising(*arguments):
    raise RuntimeError("secret detail")


async def raising_later(*arguments):
    await asyncio.sleep(0)
    raise RuntimeError("secret detail")


async def exiting(*arguments):
    raise SystemExit(3)


def exiting_plainly(*arguments):
    raise KeyboardInterrupt


RELEASED = threading.Event()
"""Ends the hooks that never return, once their test is over: they would slow down all others."""


def spinning(*arguments):
    while not RELEASED.is_set():
        pass


def blocking(*arguments):
    RELEASED.wait()


def sleeping(*arguments):
    time.sleep(3)


SLEEPS = {"s": 0.0}


def sleeping_as_told(*arguments):
    ends_at = time.monotonic() + SLEEPS["s"]
    while time.monotonic() < ends_at:
        time.sleep(0.01)


async def hanging(*arguments):
    await asyncio.Event().wait()


async def cancelled_in_vain(*arguments):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)


def nonsense(*arguments):
    return 42


NONSENSE = {"answer": None}


def limit_of_nonsense(call):
    return NONSENSE["answer"]


def limit_by_metadata(call):
    CALLS.append(call)
    if call.principal.metadata.get("vip"):
        return None
    return {"key": call.principal.metadata.get("tenant", call.principal.consumer), "amount": 2, "per": 60}


async def limit_later(call):
    await asyncio.sleep(0)
    return {"key": "all", "amount": 3, "per": 60, "burst": 1}


not_callable = 5
