"""The connection to NATS, and the buckets and streams that the product needs there."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError, NotFoundError

from gateway.link.client import NatsClient

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
WITHHELD_STREAM = "WITHHELD"
FIRST_RESPONSES_STREAM = "FIRST_RESPONSES"
MQTT_SESSIONS_STREAM = "MQTT_SESSIONS"
USAGE_SUBJECT = "_apimgmt.usage"
DEAD_SUBJECT = "_apimgmt.dead"
RETAINED_SUBJECT = "_apimgmt.retained"
ATTEMPTS_SUBJECT = "_apimgmt.attempts"
RETRIES_SUBJECT = "_apimgmt.retries"
WITHHELD_SUBJECT = "_apimgmt.withheld"
FIRST_RESPONSES_SUBJECT = "_apimgmt.first_responses"
MQTT_SESSIONS_SUBJECT = "_apimgmt.mqtt_sessions"
CONTROL_SUBJECT = "_apimgmt.control"
REPLY_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 5
LEASE_S = 10.0
"""Life of a lease of a leader election that is not renewed."""
ATTEMPTS_KEPT = 500
"""Delivery attempts kept of each subscription, for at most 7 days."""
NO_RESPONDERS = "503"

_SHARES = (1, 1 / 8, 1 / 64)
_NO_SPACE = {10023, 10047}
"""Error codes of JetStream: insufficient resources, insufficient storage."""

HEALTH_S = 30.0
"""A connector that has not reported its state for this long is not running."""

_DAY_S = timedelta(days=1).total_seconds()
_GIB = 1024**3


def _stream(name: str, subjects: str, max_bytes: int, **more: Any) -> StreamConfig:
    """Return a stream in files that drops its oldest messages beyond a bound."""
    return StreamConfig(
        name=name,
        subjects=[subjects],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_bytes=max_bytes,
        allow_direct=True,
        **more,
    )


_STREAMS = (
    _stream(USAGE_STREAM, f"{USAGE_SUBJECT}.>", 2 * _GIB, max_age=35 * _DAY_S),
    _stream(DEAD_STREAM, f"{DEAD_SUBJECT}.>", 2 * _GIB, max_age=35 * _DAY_S),
    _stream(RETAINED_STREAM, f"{RETAINED_SUBJECT}.>", _GIB // 4, max_msgs_per_subject=1),
    _stream(ATTEMPTS_STREAM, f"{ATTEMPTS_SUBJECT}.*", _GIB, max_age=7 * _DAY_S, max_msgs_per_subject=ATTEMPTS_KEPT),
    _stream(RETRIES_STREAM, f"{RETRIES_SUBJECT}.*.*", _GIB, max_msgs_per_subject=1),
    _stream(WITHHELD_STREAM, f"{WITHHELD_SUBJECT}.*.*", _GIB, max_msgs_per_subject=1),
    _stream(FIRST_RESPONSES_STREAM, f"{FIRST_RESPONSES_SUBJECT}.*", _GIB, max_age=_DAY_S, max_msgs_per_subject=1),
    _stream(MQTT_SESSIONS_STREAM, f"{MQTT_SESSIONS_SUBJECT}.*.*", _GIB // 8, max_age=_DAY_S, max_msgs_per_subject=1),
)
_BUCKETS = (
    KeyValueConfig(bucket=SNAPSHOT_BUCKET, history=1, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=JOBS_BUCKET, history=1, storage=StorageType.FILE, ttl=8 * _DAY_S, direct=True),
    KeyValueConfig(bucket=HEALTH_BUCKET, history=1, storage=StorageType.FILE, direct=True),
    KeyValueConfig(bucket=LEASES_BUCKET, history=1, storage=StorageType.FILE, ttl=LEASE_S),
    KeyValueConfig(bucket=CONNECTORS_BUCKET, history=1, storage=StorageType.MEMORY, ttl=HEALTH_S, direct=True),
)


async def connect(url: str, name: str) -> tuple[NatsClient, JetStreamContext]:
    """Connect to NATS; a connection that is lost is restored without a limit of attempts.

    Raises TimeoutError or the error of the client if the first attempt does not succeed within ``CONNECT_TIMEOUT_S``.
    """
    client = NatsClient()
    try:
        # The client itself would retry forever, as it does after a lost connection.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.connect(
                url,
                name=name,
                connect_timeout=CONNECT_TIMEOUT_S,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]  # passed to sleep(), so a fraction is allowed
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
    """Create the buckets and streams that are missing; existing ones are left unchanged."""
    for bucket in _BUCKETS:
        try:
            await js.stream_info(f"KV_{bucket.bucket}")
        except NotFoundError:
            await _create_once(js.create_key_value(bucket))
    for stream in _STREAMS:
        try:
            await js.stream_info(str(stream.name))
        except NotFoundError:
            await _create_once(_add_stream(js, stream))
            if stream.name == WITHHELD_STREAM:
                await move_withheld_counts(js)


async def move_withheld_counts(js: JetStreamContext) -> None:
    """Move the counts of withheld deliveries out of the stream of retries, which held both in earlier versions.

    Retries are JSON objects, and counts are bare integers.
    """
    sequence = 0
    while True:
        try:
            message = await js.get_msg(RETRIES_STREAM, sequence + 1, f"{RETRIES_SUBJECT}.*.*", direct=True, next=True)
        except NotFoundError:
            return
        assert message.seq is not None, "part of every stored message"
        assert message.subject is not None, "part of every stored message"
        sequence = message.seq
        if message.data and message.data.isdigit():
            await js.publish(WITHHELD_SUBJECT + message.subject.removeprefix(RETRIES_SUBJECT), message.data)
            await js.purge_stream(RETRIES_STREAM, subject=message.subject)


async def _add_stream(js: JetStreamContext, stream: StreamConfig) -> None:
    """Create a stream, with a smaller reservation if the operator's NATS does not allow the full one."""
    for share in _SHARES:
        try:
            await js.add_stream(replace(stream, max_bytes=int((stream.max_bytes or 0) * share)))
        except APIError as error:
            if error.err_code not in _NO_SPACE or share == _SHARES[-1]:
                raise
        else:
            return


async def _create_once(creation: object) -> None:
    """Await a creation and ignore that another process created the same stream or bucket first."""
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
    """Return up to ``most`` stored messages of a subject (wildcards allowed) from a sequence or an instant on.

    Costs one direct-get request and no consumer. Messages carry ``Nats-Sequence`` and ``Nats-Subject`` headers. Raises
    TimeoutError if the stream does not answer.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        start = {"start_time": first.isoformat()} if isinstance(first, datetime) else {"seq": max(first, 1)}
        request = {**start, "next_by_subj": subject, "batch": most}
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", orjson.dumps(request), reply=inbox)
        messages: list[Msg] = []
        while True:
            message = await subscription.next_msg(timeout=REPLY_TIMEOUT_S)
            status = (message.headers or {}).get("Status")
            if status == NO_RESPONDERS:
                raise TimeoutError(f"stream {stream} does not answer")
            if status is not None:
                return messages
            messages.append(message)
    finally:
        await subscription.unsubscribe()


async def read_all(client: Client, stream: str, subject: str, batch: int = 500) -> list[Msg]:
    """Read every stored message of a subject, as :func:`read_batch` does: one request for each ``batch`` messages."""
    messages: list[Msg] = []
    position = 1
    while True:
        page = await read_batch(client, stream, subject, position, batch)
        messages += page
        if len(page) < batch:
            return messages
        position = int((page[-1].headers or {})["Nats-Sequence"]) + 1
