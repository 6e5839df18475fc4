"""Clients and an upstream in threads of their own, on blocking sockets: nothing of them runs in the event loop."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.wire.websocket import accept_of

TIMEOUT_S = 20.0
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: %b\r\n\r\n"
)
KEY = re.compile(rb"sec-websocket-key: *([^\r]+)", re.IGNORECASE)
LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


class Line:
    """One end of a connection."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes."""
        while len(self._received) < size:
            self._receive()
        part, self._received = self._received[:size], self._received[size:]
        return part

    def until(self, mark: bytes, count: int = 1) -> bytes:
        """Return what has come up to the mark's last of so many."""
        while self._received.count(mark) < count:
            self._receive()
        at = 0
        for _ in range(count):
            at = self._received.index(mark, at) + len(mark)
        part, self._received = self._received[:at], self._received[at:]
        return part

    def response(self) -> tuple[int, bytes]:
        """Return status and body of an HTTP response that has a length."""
        head = self.until(b"\r\n\r\n")
        size = _length(head)
        return int(head.split()[1]), self.read(size)

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> None:
        part = self._socket.recv(65536)
        if not part:
            raise EOFError
        self._received += part


def connected(port: int) -> Line:
    return Line(socket.create_connection(("127.0.0.1", port), TIMEOUT_S))


@contextmanager
def upstream() -> Iterator[int]:
    """Answer two bytes to every request, and echo what comes on WebSockets; yields the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    lines: list[Line] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                lines.append(Line(listening.accept()[0]))
                threading.Thread(target=_answer, args=(lines[-1],), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()
        for line in lines:
            line.close()


def _answer(line: Line) -> None:
    with contextlib.suppress(EOFError, OSError), contextlib.closing(line):
        while True:
            head = line.until(b"\r\n\r\n")
            if key := KEY.search(head):
                line.send(ACCEPTED % accept_of(key[1]))
                _echo(line)
            line.read(_length(head))
            line.send(RESPONSE)


def _echo(line: Line) -> None:
    """Echo masked frames of less than 126 bytes."""
    while True:
        first, size = line.read(2)
        mask, payload = line.read(4), line.read(size & 0x7F)
        line.send(bytes([first, size & 0x7F]) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))


def _length(head: bytes) -> int:
    found = LENGTH.search(head)
    return int(found[1]) if found else 0
