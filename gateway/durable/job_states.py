"""Job documents, as the NATS KV bucket ``jobs`` holds them: the state that clients poll, and the input schemas."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, TypeVar

import orjson
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue

from gateway.link.nats import JOBS_BUCKET
from gateway.refusals import Reason, Refused

T = TypeVar("T")

FINAL_STATES = ("completed", "failed", "cancelled")
TYPE_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
JOB_ID = re.compile(r"job_[0-9a-f]{24}")
"""Other ids are unknown; NATS is not queried for keys that it may not accept."""
TIMEOUT_S = 2.0
WATCH_PENDING_MAX = 64
"""Changes of a job that may wait for a slow reader; further ones are dropped until the next idle time."""
WATCH_UNUSED_S = 5.0
"""JetStream deletes the consumer of a watch this long after its end, or after its connection was lost."""
_SUBJECT = f"$KV.{JOBS_BUCKET}."
_WATCH = ConsumerConfig(
    deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
    ack_policy=AckPolicy.NONE,
    inactive_threshold=WATCH_UNUSED_S,
    mem_storage=True,
)


class JobStates:
    """Reads and writes the bucket. Every method raises Refused ``overloaded`` while NATS is unavailable."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._bucket: KeyValue | None = None

    async def get(self, job_id: str) -> dict[str, Any] | None:
        """Return a job's document, or None if there is no such job."""
        if not JOB_ID.fullmatch(job_id):
            return None
        try:
            entry = await _in_time((await self._open()).get(job_id))
        except (KeyNotFoundError, NoKeysError):
            return None
        document: dict[str, Any] = orjson.loads(entry.value or b"{}")
        return document

    async def create(self, document: dict[str, Any]) -> dict[str, Any]:
        """Store a new job and return it; if its id is taken, return the job that has it."""
        try:
            await _in_time((await self._open()).create(document["id"], orjson.dumps(document)))
        except KeyWrongLastSequenceError:
            return await self.get(document["id"]) or document
        return document

    async def watch(self, job_id: str, *, idle_s: float) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield a job's document now and after each change, and None after each ``idle_s`` without one.

        Ends when the document is deleted. Close the iterator (``aclosing``) to end the watch.
        """
        while True:
            subscription = await _in_time(
                # KeyValue.watch would run two tasks for each watch, one of which polls.
                self._js.subscribe(
                    f"{_SUBJECT}{job_id}",
                    stream=f"KV_{JOBS_BUCKET}",
                    config=_WATCH,
                    manual_ack=True,
                    pending_msgs_limit=WATCH_PENDING_MAX,
                )
            )
            try:
                while True:
                    message = await subscription.next_msg(idle_s)
                    if not message.data:
                        return
                    yield orjson.loads(message.data)
            except (TimeoutError, NatsTimeoutError):
                yield None  # then subscribe again, as a restart of NATS deletes the consumer
            except NatsError as error:
                raise _unavailable() from error
            finally:
                with contextlib.suppress(NatsError):
                    await subscription.unsubscribe()

    async def request_cancel(self, job_id: str, *, by: str) -> None:
        """Ask the worker to cancel a job."""
        await _in_time((await self._open()).put(f"cancel.{job_id}", orjson.dumps({"by": by})))

    async def input_schema(self, type_: str) -> dict[str, Any]:
        """Return the JSON Schema of a job type's input. Raises Refused ``not-found`` for an unknown type."""
        unknown = Refused(Reason.NOT_FOUND, f"There is no job type `{type_[:100]}`.")
        if not TYPE_NAME.fullmatch(type_):
            raise unknown
        try:
            entry = await _in_time((await self._open()).get(f"type.{type_}"))
        except KeyNotFoundError:
            raise unknown from None
        schema: dict[str, Any] = orjson.loads(entry.value or b"{}")["schema"]
        return schema

    async def input_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the JSON Schemas of the inputs of all job types, by type."""
        info = await _in_time(self._js.stream_info(f"KV_{JOBS_BUCKET}", f"{_SUBJECT}type.*"))
        types = sorted(subject.removeprefix(f"{_SUBJECT}type.") for subject in info.state.subjects or ())
        schemas = await asyncio.gather(*map(self.input_schema, types))
        return dict(zip(types, schemas, strict=True))

    async def are_open(self, job_ids: Sequence[str]) -> dict[str, bool | None]:
        """Return whether each job is open; None for one that does not exist."""
        documents = await asyncio.gather(*(self.get(job_id) for job_id in job_ids))
        return {
            job_id: None if document is None else document["state"] not in FINAL_STATES
            for job_id, document in zip(job_ids, documents, strict=True)
        }

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await _in_time(self._js.key_value(JOBS_BUCKET))
        return self._bucket


async def _in_time(request: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await request
    except (KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError):
        raise
    except (TimeoutError, OSError, APIError, NatsError) as error:
        raise _unavailable() from error


def _unavailable() -> Refused:
    return Refused(Reason.OVERLOADED, "Jobs cannot be reached right now.", retry_after_s=1)
