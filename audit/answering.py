"""Answer requests of the data plane (:mod:`gateway.link.control_plane`), each by one service call in a thread."""

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
from operators.problems import refused_by

logger = logging.getLogger(__name__)

Answer = Callable[[dict[str, Any]], Any]
"""Takes a question, gives what can be written as JSON; raises what a view of the management API may raise."""

QUEUE = "control-plane"
"""Several control planes share the questions."""
THREADS = 4
UNDER_WAY_MAX = 64
"""Questions that wait or run here; one more is answered ``overloaded`` at once."""


def answering(answers: Mapping[str, Answer]) -> Callable[[Client, JetStreamContext, asyncio.Event], Awaitable[None]]:
    """Give the part of the projector that answers these verbs until told to stop."""

    async def run(nc: Client, js: JetStreamContext, stop: asyncio.Event) -> None:
        under_way: set[asyncio.Task[None]] = set()
        with ThreadPoolExecutor(THREADS, "answering") as threads:

            async def take(message: Msg) -> None:
                if len(under_way) >= UNDER_WAY_MAX:
                    await message.respond(encode_refusal(Refused(Reason.OVERLOADED, retry_after_s=1)))
                    return
                task = asyncio.create_task(_answer(threads, answers, message))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

            subscription = await nc.subscribe(f"{REQUEST_SUBJECT}.>", queue=QUEUE, cb=take)
            try:
                await stop.wait()
            finally:
                if not nc.is_closed:
                    await subscription.unsubscribe()
                await asyncio.gather(*under_way, return_exceptions=True)

    return run


async def _answer(threads: ThreadPoolExecutor, answers: Mapping[str, Answer], message: Msg) -> None:
    verb = message.subject.removeprefix(f"{REQUEST_SUBJECT}.")
    said = await asyncio.get_running_loop().run_in_executor(threads, _said, answers.get(verb), verb, message.data)
    if message.reply:
        await message.respond(said)


def _said(answer: Answer | None, verb: str, question: bytes) -> bytes:
    close_old_connections()
    try:
        if answer is None:
            raise Refused(Reason.NOT_FOUND, "The control plane does not know this question.")
        return encode_result(answer(json.loads(question)))
    except Exception as error:
        refused = refused_by(error)
        if refused is None:
            logger.exception("answering %s failed", verb)
        return encode_refusal(refused or Refused(Reason.INTERNAL))
    finally:
        close_old_connections()
