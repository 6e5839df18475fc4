"""Creates, updates and retires the JetStream streams of channels: one stream per declared channel."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RePublish, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import BadRequestError, NotFoundError

from gateway.wire.subjects import LIVE_PREFIX

STREAM_PREFIX = "CH_"
RETIRED_PREFIX = "_apimgmt.retired."
REDRIVEN_PREFIX = "_apimgmt.redriven."

DUPLICATES_WINDOW_S = 24 * 3600.0
"""How long NATS remembers message ids, in its memory; at most as long as events are retained."""
DEFAULT_MAX_AGE_S = 7 * 24 * 3600.0
DEFAULT_MAX_BYTES = 1024**3
_NAME_IN_USE = 10058
_COMPARED = ("subjects", "max_age", "max_bytes", "max_msgs", "duplicate_window", "description", "republish")


async def ensure_stream(js: JetStreamContext, document: Mapping[str, Any]) -> None:
    """Create the stream of a channel document, or update it where subject, title or retention changed.

    Raises nats' APIError where JetStream refuses, as when two channels' subjects overlap.
    """
    config = stream_config(document)
    try:
        present = (await js.stream_info(str(config.name))).config
    except NotFoundError:
        try:
            await js.add_stream(config, first_seq=int(time.time() * 1_000_000))
        except BadRequestError as error:
            if error.err_code != _NAME_IN_USE:  # created by another process meanwhile
                raise
        return
    if any(getattr(present, name) != getattr(config, name) for name in _COMPARED):
        await js.update_stream(config, first_seq=present.first_seq)


def redriven_subject(stream: str, subscription: str = "*") -> str:
    """Return the subject, on the channel's stream, of dead letters redriven to one subscription."""
    return f"{REDRIVEN_PREFIX}{stream}.{subscription}"


async def delete_stream(js: JetStreamContext, name: str) -> None:
    """Delete a channel's stream with all its events, if it exists."""
    try:
        await js.delete_stream(name)
    except NotFoundError:
        return


async def retire_stream(js: JetStreamContext, name: str) -> None:
    """Remove a stream's subjects, if it exists: it stores nothing more, and its events expire.

    A new channel may then overlap with it. :func:`ensure_stream` restores it with the events that are left.
    """
    try:
        present = (await js.stream_info(name)).config
    except NotFoundError:
        return
    if present.subjects != [f"{RETIRED_PREFIX}{name}"]:
        retired = replace(present, subjects=[f"{RETIRED_PREFIX}{name}"])
        await js.update_stream(retired, first_seq=present.first_seq)


async def retire_streams_except(js: JetStreamContext, names: Collection[str]) -> None:
    """Retire the streams of removed channels; delete those without events."""
    for info in await _channel_streams(js):
        name = str(info.config.name)
        if name in names:
            continue
        if info.state.messages:
            await retire_stream(js, name)
        else:
            await delete_stream(js, name)


async def _channel_streams(js: JetStreamContext) -> list[StreamInfo]:
    found: list[StreamInfo] = []
    while True:
        page = await js.streams_info(offset=len(found))
        found.extend(page)
        if not page:
            return [info for info in found if str(info.config.name).startswith(STREAM_PREFIX)]


def stream_config(document: Mapping[str, Any]) -> StreamConfig:
    """Return the configuration of a channel's stream, except its first sequence, which is set on creation.

    What is republished has the subject of the event's address, whatever its subject in the stream begins with.
    """
    prefix = document.get("subject_prefix") or ""
    retention = document.get("retention") or {}
    max_age_s = float(retention.get("max_age_s") or DEFAULT_MAX_AGE_S)
    return StreamConfig(
        name=document["stream"],
        description=document.get("title") or document["address"],
        subjects=[prefix + document["subject"], redriven_subject(document["stream"])],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=max_age_s,
        max_bytes=int(retention.get("max_bytes") or DEFAULT_MAX_BYTES),
        max_msgs=int(retention.get("max_events") or -1),
        duplicate_window=min(DUPLICATES_WINDOW_S, max_age_s),
        allow_direct=True,
        republish=RePublish(src=f"{prefix}>", dest=f"{LIVE_PREFIX}>"),
    )
