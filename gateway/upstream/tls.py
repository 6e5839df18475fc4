"""TLS to upstreams that keeps what arrived readable after a write has failed.

The event loop closes a connection whose write failed, with what it had not read: the answer of an upstream that refuses
a body and closes before it has read it. A second descriptor of the socket keeps that, and it is decrypted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from typing import Any

READ_BYTES = 256 * 1024


class _Rereadable(ssl.SSLObject):
    """Knows where its input comes from, which the event loop's protocol keeps to itself."""

    incoming: ssl.MemoryBIO

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, *arguments: Any, **options: Any) -> Any:
        made = super()._create(incoming, *arguments, **options)  # type: ignore[misc]  # of `sslobject_class`
        made.incoming = incoming
        return made


def rereadable(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have connections with this context be readable by :class:`Remainder`, and return it."""
    context.sslobject_class = _Rereadable
    return context


class Remainder:
    """What arrived on one connection over TLS, until :meth:`close`."""

    __slots__ = ("_descriptor", "_tls")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._tls = transport.get_extra_info("ssl_object")
        self._descriptor = os.dup(transport.get_extra_info("socket").fileno())

    def read(self) -> bytes:
        """Return the next part that was not read before the connection was lost, ``b""`` after the last."""
        with contextlib.suppress(OSError, ssl.SSLError):
            while True:
                try:
                    return bytes(self._tls.read(READ_BYTES))
                except ssl.SSLWantReadError:
                    received = os.read(self._descriptor, READ_BYTES)
                if not received:
                    break
                self._tls.incoming.write(received)
        return b""

    def close(self) -> None:
        """Let the socket be closed."""
        os.close(self._descriptor)
