"""A cache of documents, shared by keys with the same rights and limits and cleared when the configuration changes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from gateway.config import Config
from gateway.contracts import asyncapi, openapi
from gateway.contracts.view import PublicUrls, View
from gateway.refusals import Reason, Refused
from gateway.snapshot.documents import Limit
from gateway.snapshot.picture import Snapshot
from gateway.snapshot.principal import Principal

DOCUMENT_MAX_BYTES = 8 * 1024 * 1024
CACHE_MAX_BYTES = 32 * 1024 * 1024
WAIT_S = 5.0
PENDING_MAX = 32

KEPT_S = 60.0
"""How long a document is kept: job types change with the code of their workers, of which nothing tells the cache."""

Inputs = Mapping[str, Mapping[str, Any]]
"""The schemas of the inputs of job types."""
DocumentKey = tuple[str, tuple[str, ...], tuple[str, ...] | None, tuple[Limit, ...], frozenset[str]]
"""Format, scopes of the key, scopes of its tier, limits, and channels (empty for all)."""
_BUILDERS: Mapping[str, Callable[[View], dict[str, Any]]] = {
    "asyncapi": asyncapi.build_asyncapi,
    "openapi": openapi.build_openapi,
}
_IN_KEY = frozenset({"key", "consumer", "tier"})
"""Kinds of configuration whose changes alter the key of the cache."""


@dataclass(frozen=True, slots=True)
class CachedDocument:
    """A document as it is sent."""

    body: bytes
    etag: str
    kept_until: float = math.inf


class DocumentCache:
    """Builds documents, one at a time in a thread, and caches the most recently used ones."""

    def __init__(
        self, config: Config, snapshot: Snapshot, input_schemas: Callable[[], Awaitable[Inputs]] | None = None
    ) -> None:
        self._urls = PublicUrls(config.public_url, config.mqtt_url)
        self._snapshot = snapshot
        self._input_schemas = input_schemas
        self._documents: OrderedDict[DocumentKey, CachedDocument] = OrderedDict()
        self._cached_bytes = 0
        self._edition = 0
        self._pending: dict[tuple[int, DocumentKey], asyncio.Task[CachedDocument]] = {}
        """By edition too: a request after a change must not receive a document built from before it."""
        self._building = asyncio.Lock()
        snapshot.on_change(self._changed)

    async def document(self, format_: str, who: Principal, channels: frozenset[str] = frozenset()) -> CachedDocument:
        """Return a document for a principal, restricted to ``channels`` unless that is empty.

        Raises Refused ``too-large``, and ``overloaded`` if it is not built within ``WAIT_S`` or too many others are
        pending. Building continues after a timeout, so that a retry finds the document in the cache.
        """
        key = (format_, who.scopes, who.ceiling, who.limits, channels)
        if (cached := self._cached(key)) is not None:
            return cached
        task = self._pending.get((self._edition, key)) or self._begin(key, who)
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise _busy() from error

    def _begin(self, key: DocumentKey, who: Principal) -> asyncio.Task[CachedDocument]:
        if len(self._pending) >= PENDING_MAX:
            raise _busy()
        edition_key = (self._edition, key)
        task = self._pending[edition_key] = asyncio.create_task(self._build(key, who), name="document")
        task.add_done_callback(lambda done: self._finish(edition_key, done))
        return task

    def _finish(self, edition_key: tuple[int, DocumentKey], done: asyncio.Task[CachedDocument]) -> None:
        self._pending.pop(edition_key)
        if not done.cancelled():
            done.exception()  # raised in the waiting callers; ignored if none is left

    async def _build(self, key: DocumentKey, who: Principal) -> CachedDocument:
        format_, *_, channels = key
        edition = self._edition
        inputs = await self._inputs() if format_ == "openapi" else {}
        async with self._building:
            view = View(
                who,
                self._urls,
                tuple(channel for channel in self._snapshot.channels() if not channels or channel.address in channels),
                tuple(self._snapshot.routes()),
                self._snapshot.subjects(),
                inputs or {},
            )
            body = await asyncio.to_thread(lambda: orjson.dumps(_BUILDERS[format_](view)))
        if len(body) > DOCUMENT_MAX_BYTES:
            raise Refused(
                Reason.TOO_LARGE,
                f"The document has more than {DOCUMENT_MAX_BYTES} bytes. Select channels with `?channel=`.",
            )
        kept_until = time.monotonic() + KEPT_S if format_ == "openapi" else math.inf
        document = CachedDocument(body, f'"{blake2b(body, digest_size=12).hexdigest()}"', kept_until)
        if edition == self._edition and inputs is not None:
            self._store(key, document)
        return document

    async def _inputs(self) -> Inputs | None:
        """Return the schemas of the inputs of job types; None while they cannot be read."""
        if self._input_schemas is None:
            return {}
        try:
            return await self._input_schemas()
        except Refused:
            return None

    def _cached(self, key: DocumentKey) -> CachedDocument | None:
        cached = self._documents.get(key)
        if cached is None or cached.kept_until <= time.monotonic():
            return None
        self._documents.move_to_end(key)
        return cached

    def _store(self, key: DocumentKey, document: CachedDocument) -> None:
        replaced = self._documents.pop(key, None)
        self._cached_bytes -= len(replaced.body) if replaced is not None else 0
        self._documents[key] = document
        self._cached_bytes += len(document.body)
        while self._cached_bytes > CACHE_MAX_BYTES:
            _, oldest = self._documents.popitem(last=False)
            self._cached_bytes -= len(oldest.body)

    def _changed(self, kinds: frozenset[str]) -> None:
        if kinds - _IN_KEY:
            self._edition += 1
            self._documents.clear()
            self._cached_bytes = 0


def _busy() -> Refused:
    return Refused(Reason.OVERLOADED, "Too many documents are being built. Try again later.", retry_after_s=1)
