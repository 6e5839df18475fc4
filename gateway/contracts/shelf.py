"""Documents made lately: one for all keys with the same rights and limits, until what they speak of changes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from gateway.config import Config
from gateway.contracts import asyncapi, openapi
from gateway.contracts.view import View, Where
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Limit
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal

DOCUMENT_MAX_BYTES = 8 * 1024 * 1024
KEPT_MAX_BYTES = 32 * 1024 * 1024
WAIT_S = 5.0
UNDER_WAY_MAX = 32

Wanted = tuple[str, tuple[str, ...], tuple[str, ...] | None, tuple[Limit, ...], frozenset[str]]
"""Which document, for which scopes, of the caller and of its tier, and limits, of which channels; none named: all."""
_WRITERS: Mapping[str, Callable[[View], dict[str, Any]]] = {"asyncapi": asyncapi.written, "openapi": openapi.written}
_OF_KEYS = frozenset({"key", "consumer", "tier"})
"""Kinds whose changes a principal shows by itself."""


@dataclass(frozen=True, slots=True)
class Written:
    """A document as it is sent."""

    body: bytes
    etag: str


class Shelf:
    """Writes documents, one at a time and in a thread, and keeps those of the last callers."""

    def __init__(self, config: Config, snapshot: Snapshot) -> None:
        self._where = Where(config.public_url, config.mqtt_url)
        self._snapshot = snapshot
        self._kept: OrderedDict[Wanted, Written] = OrderedDict()
        self._kept_bytes = 0
        self._edition = 0
        self._under_way: dict[tuple[int, Wanted], asyncio.Task[Written]] = {}
        """By edition too: what changes now is in what is asked for from now on."""
        self._writing = asyncio.Lock()
        snapshot.on_change(self._changed)

    async def document(self, which: str, who: Principal, channels: frozenset[str] = frozenset()) -> Written:
        """Give a document for a principal, of these channels alone where some are named.

        Raises Refused ``too-large``, and ``overloaded`` where it is not written within 5 s, or too many others are
        waited for. It is written all the same, so that it is there when it is asked for again.
        """
        wanted = (which, who.scopes, who.ceiling, who.limits, channels)
        if (known := self._known(wanted)) is not None:
            return known
        task = self._under_way.get((self._edition, wanted)) or self._begin(wanted, who)
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise _busy() from error

    def _begin(self, wanted: Wanted, who: Principal) -> asyncio.Task[Written]:
        if len(self._under_way) >= UNDER_WAY_MAX:
            raise _busy()
        which = (self._edition, wanted)
        task = self._under_way[which] = asyncio.create_task(self._write(wanted, who), name="document")
        task.add_done_callback(lambda done: self._ended(which, done))
        return task

    def _ended(self, which: tuple[int, Wanted], done: asyncio.Task[Written]) -> None:
        self._under_way.pop(which)
        if not done.cancelled():
            done.exception()  # who waits is told; where nobody does any more, it is no fault

    async def _write(self, wanted: Wanted, who: Principal) -> Written:
        which, *_, channels = wanted
        async with self._writing:
            view = View(
                who,
                self._where,
                tuple(channel for channel in self._snapshot.channels() if not channels or channel.address in channels),
                tuple(self._snapshot.routes()),
                self._snapshot.subjects(),
            )
            edition = self._edition
            body = await asyncio.to_thread(lambda: orjson.dumps(_WRITERS[which](view)))
        if len(body) > DOCUMENT_MAX_BYTES:
            raise Refused(
                Reason.TOO_LARGE,
                f"The document has more than {DOCUMENT_MAX_BYTES} bytes: name channels as `?channel=`.",
            )
        written = Written(body, f'"{blake2b(body, digest_size=12).hexdigest()}"')
        if edition == self._edition:
            self._keep(wanted, written)
        return written

    def _known(self, wanted: Wanted) -> Written | None:
        if (known := self._kept.get(wanted)) is not None:
            self._kept.move_to_end(wanted)
        return known

    def _keep(self, wanted: Wanted, written: Written) -> None:
        self._kept[wanted] = written
        self._kept_bytes += len(written.body)
        while self._kept_bytes > KEPT_MAX_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.body)

    def _changed(self, kinds: frozenset[str]) -> None:
        if kinds - _OF_KEYS:
            self._edition += 1
            self._kept.clear()
            self._kept_bytes = 0


def _busy() -> Refused:
    return Refused(Reason.OVERLOADED, "Too many documents are asked for.", retry_after_s=1)
