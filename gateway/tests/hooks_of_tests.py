"""Hooks that policies of the tests name: some do as they should, the others fail in each way there is."""

import asyncio
import threading
import time

from gateway.hooks import DROP, Answer, Refuse

CALLS = []
"""What ``recording`` and ``limit_by_metadata`` were called with."""
RELEASED = threading.Event()
"""Ends the hooks that never return, once their test is over: they would slow down all others."""
SLEEP = {"s": 0.0}
"""How long ``sleeping`` sleeps."""
LIMIT = {"result": None}
"""What ``limit_as_set`` returns."""


def recording(call, request, options):
    CALLS.append((call, request, options))


def changing(call, request, options):
    request.headers["x-region"] = call.principal.metadata.get("region", "eu")
    request.headers["authorization"] = "Bearer of-the-upstream"
    del request.headers["x-secret"]
    if request.body is not None:
        request.json = request.json | {"by": call.principal.consumer} | options


async def answering(call, request, options):
    await asyncio.sleep(0)
    return Answer(402, {"pay": call.principal.tier}, {"x-why": "because"})


async def refusing(call, request, options):
    raise Refuse("forbidden", "Not today.")


def returning_a_refusal(call, request, options):
    return Refuse("rate-limited", "Later.", retry_after_s=7)


def changing_answers(call, answer, options):
    answer.headers["x-seen"] = str(answer.status)
    if answer.body is not None:
        answer.json = {"wrapped": answer.json}


def replacing_answers(call, answer, options):
    return Answer(503, "closed", {"retry-after": "5"})


def on_message(call, message, options):
    content = message.json if message.data[:1] in ("{", b"{") else None
    if content == {"drop": True}:
        return DROP
    if content == {"refuse": True}:
        return Refuse("invalid-payload", "No.")
    if content is not None:
        message.json = content | {message.direction: call.route}
    return None


def raising(*arguments):
    raise RuntimeError("secret detail")


async def raising_later(*arguments):
    await asyncio.sleep(0)
    raise RuntimeError("secret detail")


async def exiting(*arguments):
    raise SystemExit(3)


def interrupting(*arguments):
    raise KeyboardInterrupt


def spinning(*arguments):
    while not RELEASED.is_set():
        pass


def sleeping(*arguments):
    began_at = time.monotonic()
    while time.monotonic() < began_at + SLEEP["s"] and not RELEASED.is_set():
        time.sleep(0.01)


async def hanging(*arguments):
    await asyncio.Event().wait()


async def ignoring_cancellation(*arguments):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)


def returning_a_number(*arguments):
    return 42


def limit_as_set(call):
    return LIMIT["result"]


def limit_by_metadata(call):
    CALLS.append(call)
    if call.principal.metadata.get("vip"):
        return None
    return {"key": call.principal.metadata.get("tenant", call.principal.consumer), "amount": 2, "per": 60}


async def limit_later(call):
    await asyncio.sleep(0)
    return {"key": "all", "amount": 3, "per": 60, "burst": 1}


not_callable = 5
