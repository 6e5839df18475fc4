"""The connection to NATS, and the buckets and streams of ours that must exist there."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError, NotFoundError

logger = logging.getLogger(__name__)

SNAPSHOT_BUCKET = "snapshot"
JOBS_BUCKET = "jobs"
HEALTH_BUCKET = "subscriptions"
LEASES_BUCKET = "leases"
CONNECTORS_BUCKET = "connectors"
USAGE_STREAM = "USAGE"
DEAD_STREAM = "DEAD"
RETAINED_STREAM = "RETAINED"
ATTEMPTS_STREAM = "ATTEMPTS"
RETRIES_STREAM = "RETRIES"
USAGE_SUBJECT = "_apimgmt.usage"
DEAD_SUBJECT = "_apimgmt.dead"
RETAINED_SUBJECT = "_apimgmt.retained"
ATTEMPTS_SUBJECT = "_apimgmt.attempts"
RETRIES_SUBJECT = "_apimgmt.retries"
CONTROL_SUBJECT = "_apimgmt.control"
ANSWER_TIMEOUT_S = 2.0
FIRST_WITHIN_S = 5
LEASE_S = 10.0
"""How long a lease lasts that nobody renews."""
ATTEMPTS_KEPT = 500
"""Tries kept of each subscription, for at most 7 days."""
NO_RESPONDERS = "503"

_SHARES = (1, 1 / 8, 1 / 64)
_NO_ROOM = {10023, 10047}
"""Error codes of JetStream: insufficient resources, insufficient storage."""

HEALTH_S = 30.0
"""What has not told how it does for so long is not running."""

_DAY_S = timedelta(days=1).total_seconds()
_STREAMS = (
    StreamConfig(
        name=USAGE_STREAM,
        subjects=[f"{USAGE_SUBJECT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=35 * _DAY_S,
        max_bytes=2 * 1024**3,
        allow_direct=True,
    ),
    StreamConfig(
        name=DEAD_STREAM,
        subjects=[f"{DEAD_SUBJECT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=35 * _DAY_S,
        max_bytes=2 * 1024**3,
        allow_direct=True,
    ),
    StreamConfig(
        name=RETAINED_STREAM,
        subjects=[f"{RETAINED_SUBJECT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_msgs_per_subject=1,
        max_bytes=256 * 1024**2,
        allow_direct=True,
    ),
    StreamConfig(
        name=ATTEMPTS_STREAM,
        subjects=[f"{ATTEMPTS_SUBJECT}.*"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=7 * _DAY_S,
        max_msgs_per_subject=ATTEMPTS_KEPT,
        max_bytes=1024**3,
        allow_direct=True,
    ),
    StreamConfig(
        name=RETRIES_STREAM,
        subjects=[f"{RETRIES_SUBJECT}.*.*"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_msgs_per_subject=1,
        max_bytes=1024**3,
        allow_direct=True,
    ),
)
_BUCKETS = (
    KeyValueConfig(bucket=SNAPSHOT_BUCKET, history=1, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=JOBS_BUCKET, history=1, storage=StorageType.FILE, ttl=8 * _DAY_S, direct=True),
    KeyValueConfig(bucket=HEALTH_BUCKET, history=1, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=LEASES_BUCKET, history=1, storage=StorageType.FILE, ttl=LEASE_S),
    KeyValueConfig(bucket=CONNECTORS_BUCKET, history=1, storage=StorageType.MEMORY, ttl=HEALTH_S, direct=True),
)


async def connect(url: str, name: str) -> tuple[Client, JetStreamContext]:
    """Connect, and stay connected: reconnects without end.

    Raises TimeoutError, or what NATS says, where the first connection is not made within 5 s.
    """
    client = Client()
    try:
        # The client itself would try for ever, as it does once it was connected.
        async with asyncio.timeout(FIRST_WITHIN_S):
            await client.connect(
                url,
                name=name,
                connect_timeout=FIRST_WITHIN_S,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]  # it is slept, so it may be a fraction
                max_reconnect_attempts=-1,
                ping_interval=5,
                max_outstanding_pings=2,
                allow_reconnect=True,
                error_cb=_log_error,
                disconnected_cb=_log_disconnected,
                reconnected_cb=_log_reconnected,
                pending_size=8 * 1024 * 1024,
            )
    except BaseException:
        await client.close()
        raise
    return client, client.jetstream(timeout=2)


async def ensure_infrastructure(js: JetStreamContext) -> None:
    """Make the buckets and streams of ours that are missing; changes none that exist."""
    for bucket in _BUCKETS:
        try:
            await js.stream_info(f"KV_{bucket.bucket}")
        except NotFoundError:
            await _tolerating_a_rival(js.create_key_value(bucket))
    for stream in _STREAMS:
        try:
            await js.stream_info(str(stream.name))
        except NotFoundError:
            await _tolerating_a_rival(_add_stream(js, stream))


async def _add_stream(js: JetStreamContext, stream: StreamConfig) -> None:
    """Make a stream, smaller where a NATS of the operator's own lets it reserve no more."""
    for share in _SHARES:
        try:
            await js.add_stream(replace(stream, max_bytes=int((stream.max_bytes or 0) * share)))
        except APIError as error:
            if error.err_code not in _NO_ROOM or share == _SHARES[-1]:
                raise
        else:
            return


async def _tolerating_a_rival(creation: object) -> None:
    """Two processes may find the same stream missing; the second creation is then no fault."""
    try:
        await creation  # type: ignore[misc]
    except BadRequestError as error:
        if error.err_code != 10058:  # stream name already in use
            raise


async def _log_error(error: Exception) -> None:
    logger.warning("nats: %s", str(error) or type(error).__name__)


async def _log_disconnected() -> None:
    logger.warning("nats: connection lost")


async def _log_reconnected() -> None:
    logger.info("nats: connected again")


async def read_batch(client: Client, stream: str, subject: str, first: int | datetime, most: int = 500) -> list[Msg]:
    """Read the stored messages of a subject (wildcards allowed) from a sequence or an instant on.

    One request, no consumer. Messages carry ``Nats-Sequence`` and ``Nats-Subject`` headers. Raises TimeoutError when
    the stream does not answer.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        start = {"start_time": first.isoformat()} if isinstance(first, datetime) else {"seq": max(first, 1)}
        ask = {**start, "next_by_subj": subject, "batch": most}
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(ask), reply=inbox)
        messages: list[Msg] = []
        while True:
            message = await subscription.next_msg(timeout=ANSWER_TIMEOUT_S)
            status = (message.headers or {}).get("Status")
            if status == NO_RESPONDERS:
                raise TimeoutError(f"stream {stream} does not answer")
            if status is not None:
                return messages
            messages.append(message)
    finally:
        await subscription.unsubscribe()
