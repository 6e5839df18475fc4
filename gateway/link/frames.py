"""Cuts what NATS sends into frames, so that the replies to publishes take none of the client's way for a message.

The client of NATS parses a message by several expressions, builds an object for it and puts it in a queue, from which
a task takes it. Here the reply to a stored message is matched by one expression, and its callback is called at once.
Every other frame is passed on to the client's own parser, whole and in its order.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

Replied = Callable[[int, int, bool], None]
"""Called with the number of a request, the sequence that its message was stored at, and whether it is a duplicate."""

_END = b"\r\n"
_MESSAGE = (b"MSG ", b"HMSG")
_STORED = (
    rb"([0-9]{1,18}) [0-9]+ ([0-9]{1,4})\r\n"
    rb'(\{"stream":"[^"\\\r\n]*",(?: ?"domain":"[^"\\\r\n]*",)? ?"seq":([0-9]{1,18})(,"duplicate": ?true)?\})\r\n'
)
"""After the inbox: the number, the subscription, the size and the reply to a message that was stored."""
_HELD_MAX_BYTES = 64 * 1024
"""A longer frame that has not arrived whole is left to the client's parser, which holds its parts in one buffer."""


class FrameParser(Parser):
    """The parser of a client, which calls :attr:`replied` for the replies of JetStream to stored messages."""

    def __init__(self, client: Client) -> None:
        self._held = b""
        self._resets = 0
        self._replied: Replied | None = None
        self._match = re.compile(rb"(?!)").match
        super().__init__(client)

    def expect(self, inbox: str, replied: Replied) -> None:
        """Call ``replied`` for each reply to ``INBOX.NUMBER`` that reports a stored message, instead of delivering it.

        Errors, and replies in any other form, are delivered to the subscription of the inbox.
        """
        self._match = re.compile(rb"MSG %b\.%b" % (re.escape(inbox.encode()), _STORED)).match
        self._replied = replied

    def reset(self) -> None:
        """Forget what has arrived of a frame: the connection is a new one."""
        self._held = b""
        self._resets += 1
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        """Parse what has arrived; an incomplete frame waits for its end."""
        if self._held:
            data, self._held = self._held + data, b""
        at, end = self._missing(), len(data)
        if at:
            await super().parse(data[:at])
        match, replied, resets = self._match, self._replied, self._resets
        while at < end:
            found = match(data, at)
            if found is not None and replied is not None:
                number, size, reply, sequence, duplicate = found.groups()
                if len(reply) == int(size):
                    replied(int(number), int(sequence), duplicate is not None)
                    at = found.end()
                    continue
            stop = _end_of_frame(data, at)
            if stop > end and stop - at <= _HELD_MAX_BYTES:
                self._held = data[at:]
                return
            await super().parse(data[at:stop])
            if self._resets != resets:
                return  # the rest came by a connection that is lost
            at = stop

    def _missing(self) -> int:
        """Return how many bytes the frame lacks of which the client's parser has the beginning."""
        if self.state == AWAITING_CONTROL_LINE:
            return 0
        return int(self.needed) + len(_END) - len(self.buf)


def _end_of_frame(data: bytes, at: int) -> int:
    """Return where the frame at this place ends; beyond the data for one that has not arrived whole."""
    line_end = data.find(_END, at)
    if line_end < 0:
        return len(data) + 1
    after = line_end + len(_END)
    if data[at : at + 4] not in _MESSAGE:
        return after
    size = data[data.rfind(b" ", at, line_end) + 1 : line_end]
    return after + int(size) + len(_END) if size.isdigit() else after
