"""One HTTP/1.1 client connection to an upstream, streamed both ways, every wait with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections import deque
from functools import partial
from typing import Protocol as Interface

import httptools

from gateway.peer import ClientGone
from gateway.refusals import Reason, Refused
from gateway.upstream.origin import Origin
from gateway.upstream.tls import Remainder
from gateway.wire.header_fields import Headers

READ_AHEAD_BYTES = 256 * 1024
"""Reading from the upstream pauses while this many bytes are buffered."""
HEAD_MAX_BYTES = 64 * 1024
"""Bound of the heads of one response, interim ones included, and of its trailers."""


class UpstreamBroken(Exception):
    """The connection to the upstream failed."""


class Carried(Interface):
    """A call whose response is awaited by callbacks, without a task."""

    def answered(self, data: bytes) -> None:
        """Take the first bytes of the response."""

    def hand_over(self) -> None:
        """Let a task await the response: the connection failed, or its deadline has passed."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to an upstream, used by one call at a time."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.deadline: float | None = None
        self.first_byte_s = 0.0
        """How long the call that uses it waits for the head of the response."""
        self.idle_s = 0.0
        """How long it waits for each part of the response."""
        self.pooled_at = 0.0
        self.is_reused = False
        self.is_sent = True
        """Whether the request has been sent whole."""
        self.has_begun_to_answer = False
        self.has_answered = False
        self.is_continued = False
        """Whether the upstream has asked for the body, by ``100 Continue``."""
        self.status = 0
        self.phrase = b""
        """The reason phrase (RFC 9112 4)."""
        self.headers: Headers = []
        self.trailers: Headers = []
        """The trailers, once the response is whole. They are never headers (RFC 9110 6.5.1)."""
        self.interim: list[tuple[int, Headers]] = []
        """Interim responses (RFC 9110 15.2) that nobody has taken yet."""
        self.is_whole = False
        self._keeps_alive = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpResponseParser | None = None
        self._parser_is_done = False
        """It has parsed a whole message, and parses another."""
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._unreported_bytes = 0
        """Bytes of incomplete heads, or received since the last part of the body."""
        self._is_chunked = False
        self._is_after_chunks = False
        """The size of a chunk was read and none of its data: before data arrives, or after the last chunk."""
        self._is_paused = False
        self._is_head_request = False
        self._carried: Carried | None = None
        self._remainder: Remainder | None = None
        """What may be left unread of an early answer over TLS, once more of a body was sent than came with its head."""

    @property
    def is_usable(self) -> bool:
        """Whether it may carry another request."""
        return self._failure is None and self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether the kernel has nothing to read of it, not even its end, that the event loop has not reported yet."""
        assert self._transport is not None, "not connected"
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    @property
    def has_more(self) -> bool:
        """Whether a read returns at once."""
        return bool(self._chunks) or self.is_whole

    @property
    def is_read_whole(self) -> bool:
        """Whether the response has been read to its end."""
        return self.is_whole and not self._chunks

    @property
    def can_be_kept(self) -> bool:
        """Whether request and response are complete and the upstream keeps the connection alive."""
        return self._keeps_alive and self.is_sent and self.is_whole and not self._chunks and self.is_usable

    def begin(self, head: bytes, *, is_head_request: bool, is_whole: bool = True) -> None:
        """Send the head of a request, with all of its body if ``is_whole``."""
        assert self._transport is not None, "not connected"
        self._begin(is_head_request=is_head_request, is_whole=is_whole)
        self._transport.write(head)

    def carry(self, carried: Carried, request: bytes, *, is_head_request: bool) -> None:
        """Send a whole request whose response is awaited by callbacks, until :meth:`end_carrying`."""
        assert self._transport is not None, "not connected"
        self._carried = carried
        self._is_head_request = is_head_request
        self.has_answered = self.is_whole = False
        self._transport.write(request)

    def end_carrying(self, *, is_whole: bool) -> None:
        """Count the response as read whole, and the connection as one to be kept; or go on as after :meth:`begin`."""
        self._carried = None
        if is_whole:
            self.is_whole = self.is_sent = self._keeps_alive = True
        elif self._transport is not None:
            self._begin(is_head_request=self._is_head_request, is_whole=True)

    def _begin(self, *, is_head_request: bool, is_whole: bool) -> None:
        if not self._parser_is_done:
            self._parser = httptools.HttpResponseParser(self)
        self._parser_is_done = False
        self.has_answered = self.is_whole = self._keeps_alive = self.has_begun_to_answer = False
        self.is_sent = is_whole
        self.is_continued = False
        self.status, self.phrase, self.headers, self.trailers, self.interim = 0, b"", [], [], []
        self._unreported_bytes, self._is_chunked, self._is_after_chunks = 0, False, False
        self._is_head_request = is_head_request

    async def write(self, data: bytes) -> None:
        """Send a part of the body; waits while the upstream does not read. Raises as ``head`` does."""
        self._check()
        assert self._transport is not None, "not connected"
        if self.origin.is_tls and self._remainder is None and not self.is_whole:
            self._remainder = Remainder(self._transport)
        self._transport.write(data)
        if self._can_write is not None:
            await self._can_write
            self._check()

    async def continued(self, within_s: float) -> bool:
        """Wait, at most so long, until the upstream asks for the body; return False if it has answered without.

        Raises as ``head`` does.
        """
        try:
            async with asyncio.timeout(within_s):
                while not self.is_continued and not self.has_answered:
                    await self._wait()
        except TimeoutError:
            pass
        return not self.has_answered

    async def head(self) -> bool:
        """Wait for the next head; return whether it is the final one, or else ``interim`` has one to take.

        Raises UpstreamBroken, Refused ``upstream-timeout`` and ClientGone.
        """
        while not self.has_answered and not self.interim:
            await self._wait()
        return not self.interim

    async def read(self) -> bytes:
        """Wait for a part of the body and return it, ``b""`` at its end. Raises as ``head`` does."""
        await self.more()
        return self.take()

    async def more(self) -> None:
        """Wait for a part of the body, or its end. Raises as ``head`` does."""
        while not self._chunks and not self.is_whole:
            await self._wait()

    def take(self) -> bytes:
        """Return what has arrived of the body, ``b""`` at its end."""
        if not self._chunks:
            return b""
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._waiting_bytes = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Abort the connection."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """Abort because the client has disconnected."""
        self.fail(ClientGone())
        self.close()

    def fail(self, failure: Exception) -> None:
        """Raise this where the response is awaited."""
        if self._failure is None:
            self._failure = failure
        self._wake()

    def expire(self) -> None:
        """Abort because the deadline has passed."""
        self.fail(timed_out(self.idle_s, "idle_s") if self.has_answered else timed_out(self.first_byte_s))
        self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._carried is not None:
            self._carried.answered(data)
            return
        if self._parser is None or self.is_whole:
            # An unsolicited response: the connection cannot be trusted with another request.
            self.close()
            return
        self.has_begun_to_answer = True
        self._unreported_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._unreported_bytes > HEAD_MAX_BYTES and not self.is_whole:
                raise httptools.HttpParserError("its head or trailer is too large")
        except httptools.HttpParserUpgrade as upgrade:
            self._switched(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(error)
            return
        self._wake()

    def _switched(self, rest: bytes) -> None:
        """The upstream has switched protocols; ``rest`` is of the other one. Nobody requests that of it here."""
        self._malformed(UpstreamBroken("an upgrade that was not requested"))

    def _malformed(self, error: Exception) -> None:
        """Fail; but a body whose last chunk was received is complete, whatever its trailers are (RFC 9112 8)."""
        if self.has_answered and self._is_after_chunks:
            self.is_whole, self.trailers = True, []
        self.fail(UpstreamBroken(f"not HTTP: {error}"))
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._parser is not None:
            self._read_rest()
        self._drop_remainder()
        # A response without a length ends with its connection.
        if self.has_answered and not self.is_whole and exc is None and not self._has_length():
            self.is_whole = True
        self.fail(exc or UpstreamBroken("the connection was closed"))
        # The parser refers to this connection; as a cycle both would stay until a collection stops all traffic.
        self._parser = None
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)

    def _read_rest(self) -> None:
        """Read what arrived before a write failed: an upstream may refuse a body and close before it has read it."""
        assert self._transport is not None, "it was connected"
        if self._remainder is not None:
            read = self._remainder.read
        elif self.origin.is_tls:
            return
        else:
            read = partial(os.read, self._transport.get_extra_info("socket").fileno(), READ_AHEAD_BYTES)
        # A transport that is closing cannot be paused.
        self._is_paused = True
        with contextlib.suppress(OSError):
            while not self.is_whole and self._failure is None and (data := read()):
                self.data_received(data)
        self._is_paused = False

    def _drop_remainder(self) -> None:
        if self._remainder is not None:
            self._remainder.close()
            self._remainder = None

    def pause_writing(self) -> None:
        self._can_write = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._can_write = None

    # httptools

    def on_message_begin(self) -> None:
        if self.is_whole:
            raise ValueError("a second answer to one request")

    def on_status(self, phrase: bytes) -> None:
        self.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self.has_answered:
            self.trailers.append((name, value))
            return
        if name == b"transfer-encoding":
            if value.strip(b" \t").lower() != b"chunked":
                raise ValueError("a transfer coding that the gateway does not decode")
            self._is_chunked = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None, "called by the parser"
        self.status = self._parser.get_status_code()
        if self.status == 101:
            raise ValueError("an upgrade that was not requested")
        if self.status < 200:
            self.is_continued = self.is_continued or self.status == 100
            self.interim.append((self.status, self.headers))
            self.phrase, self.headers = b"", []
            return
        self.has_answered, self._unreported_bytes = True, 0
        if self._is_chunked:
            # The head is read: from here on it concerns only a Content-Length among the trailers, which is dropped.
            self._parser.set_dangerous_leniencies(lenient_chunked_length=True)
        if self._is_head_request:
            # The parser would wait for the body that the Content-Length announces.
            self.is_whole = True
            self._keeps_alive = bool(self._parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        if self._is_head_request:
            raise ValueError("the answer to a HEAD has a body")
        self._unreported_bytes, self._is_after_chunks = 0, False
        self._chunks.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > READ_AHEAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_chunk_header(self) -> None:
        self._is_after_chunks = True

    def on_message_complete(self) -> None:
        if self.status >= 200 and self._parser is not None:
            self.is_whole = True
            self._drop_remainder()
            # After chunks the parser would take a second length in the next head, too.
            self._parser_is_done = not self._is_chunked
            self._keeps_alive = bool(self._parser.should_keep_alive())

    def _has_length(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    async def _wait(self) -> None:
        self._check()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _check(self) -> None:
        failure = self._failure
        if failure is None:
            return
        # The exception refers to frames that refer to this connection: it must not be kept here too.
        self._failure = UpstreamBroken(str(failure))
        try:
            raise failure if isinstance(failure, Refused | ClientGone) else UpstreamBroken(str(failure))
        finally:
            del failure

    def _wake(self) -> None:
        if self._carried is not None:
            self._carried.hand_over()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def timed_out(within_s: float, timeout: str = "first_byte_s") -> Refused:
    """Return the refusal of a call whose upstream took too long, which names the timeout and its seconds."""
    what = "no response" if timeout == "first_byte_s" else "nothing more of its response"
    return Refused(Reason.UPSTREAM_TIMEOUT, f"The upstream sent {what} within {within_s:g} s ({timeout}).")
