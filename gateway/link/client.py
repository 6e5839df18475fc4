"""The client of NATS, with a short way for messages that are stored: frames out as they are, replies in by a callback.

nats-py is pinned to one version, on whose buffer and parser this builds (``tests/test_nats_internals.py``).
"""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from gateway.link.frames import FrameParser, Replied


class NatsClient(Client):
    """A client of nats-py that also sends frames which were encoded elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = self._ps = FrameParser(self)
        self._inbox = b""

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and restored: what was sent before may have got lost."""
        return int(self.stats["reconnects"])

    @property
    def is_congested(self) -> bool:
        """Whether more waits to be written than the client may hold."""
        return bool(self._pending_data_size > self._max_pending_size)

    def expect_stored(self, inbox: str, replied: Replied) -> None:
        """Call ``replied`` for replies to stored messages, as :meth:`FrameParser.expect` does."""
        self._frames.expect(inbox, replied)
        self._inbox = inbox.encode() + b"."

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded frame after all that was sent before; all frames of a turn leave in one write.

        Only while the client is connected and not congested. A frame that is not written when the connection is lost
        is dropped. The client's task that writes is woken once for a turn.
        """
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _attempt_reconnect(self) -> None:
        """Drop our frames before the client connects again and writes what it still holds.

        Their sender repeats them in order, or has reported that they may not be stored.
        """
        self._pending = [command for command in self._pending if not self._is_own(command)]
        self._pending_data_size = sum(map(len, self._pending))
        await super()._attempt_reconnect()

    def _is_own(self, command: bytes) -> bool:
        is_publish = bool(self._inbox) and command.startswith(b"HPUB ")
        return is_publish and command.split(b" ", 3)[2].startswith(self._inbox)
