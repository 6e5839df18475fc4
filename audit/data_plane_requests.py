"""Serve the requests of the data plane (:mod:`gateway.link.control_plane`), each with one service call in a thread."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import close_old_connections
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from gateway.link.control_plane import REQUEST_SUBJECT, encode_refusal, encode_result
from gateway.refusals import Reason, Refused
from operators.problems import refusal_of

logger = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any]], Any]
"""Takes a request and returns its result as JSON data; raises what a view of the management API may raise."""

QUEUE = "control-plane"
"""The queue group by which several control planes share the requests."""
THREADS = 4
REQUESTS_MAX = 64
"""Requests that wait or run in this process; a further one is refused ``overloaded`` at once."""


def serve_requests(
    handlers: Mapping[str, Handler],
) -> Callable[[Client, JetStreamContext, asyncio.Event], Awaitable[None]]:
    """Return the part of the projector that serves the requests of these verbs until it is stopped."""

    async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
        in_flight: set[asyncio.Task[None]] = set()
        with ThreadPoolExecutor(THREADS, "data-plane-requests") as threads:

            async def accept(message: Msg) -> None:
                if len(in_flight) >= REQUESTS_MAX:
                    await message.respond(encode_refusal(Refused(Reason.OVERLOADED, retry_after_s=1)))
                    return
                task = asyncio.create_task(_respond(threads, handlers, message))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)

            subscription = await nc.subscribe(f"{REQUEST_SUBJECT}.>", queue=QUEUE, cb=accept)
            try:
                await stop.wait()
            finally:
                if not nc.is_closed:
                    await subscription.unsubscribe()
                await asyncio.gather(*in_flight, return_exceptions=True)

    return run


async def _respond(threads: ThreadPoolExecutor, handlers: Mapping[str, Handler], message: Msg) -> None:
    verb = message.subject.removeprefix(f"{REQUEST_SUBJECT}.")
    loop = asyncio.get_running_loop()
    response = await loop.run_in_executor(threads, _handle, handlers.get(verb), verb, message.data)
    if message.reply:
        await message.respond(response)


def _handle(handler: Handler | None, verb: str, request: bytes) -> bytes:
    close_old_connections()
    try:
        if handler is None:
            raise Refused(Reason.NOT_FOUND, f"The control plane has no handler for {verb} requests.")
        return encode_result(handler(json.loads(request)))
    except Exception as error:
        refused = refusal_of(error)
        if refused is None:
            logger.exception("handling a %s request of the data plane failed", verb)
        return encode_refusal(refused or Refused(Reason.INTERNAL))
    finally:
        close_old_connections()
