"""Drives an ASGI application by a WebSocket of this server, where the data plane does not serve the path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway.peer import ClientGone
from gateway.protocols.socket import DENIAL, Message
from gateway.wire import websocket as wire

if TYPE_CHECKING:
    from gateway.server.websocket import ServerSocket
    from gateway.wire.header_fields import Headers


def scope_of(socket: ServerSocket, target: bytes, headers: Headers, state: dict[str, Any]) -> Message:
    """Return the ASGI scope of a handshake."""
    path, question_mark, query = target.partition(b"?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": None,
        "client": (socket.tcp.ip, socket.tcp.port),
        "root_path": "",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "subprotocols": list(socket.subprotocols),
        # In ASGI, an empty query and none are the same.
        "state": {**state, "has_empty_query": bool(question_mark) and not query},
        "extensions": {DENIAL: {}},
    }


class AsgiDriver:
    """The messages between an application and one socket."""

    __slots__ = ("_denial", "_has_begun", "_is_over", "_socket")

    def __init__(self, socket: ServerSocket) -> None:
        self._socket = socket
        self._has_begun = self._is_over = False
        self._denial: tuple[int, Headers, bytes] | None = None

    async def receive(self) -> Message:
        """Return the next message for the application."""
        if not self._has_begun:
            self._has_begun = True
            return {"type": "websocket.connect"}
        try:
            received = await self._socket.read()
        except ClientGone as gone:
            return {"type": "websocket.disconnect", "code": gone.code, "reason": gone.reason}
        if isinstance(received, str):
            return {"type": "websocket.receive", "text": received}
        return {"type": "websocket.receive", "bytes": received}

    async def send(self, message: Message) -> None:
        """Do as the application says. Raises OSError once the client is gone."""
        if self._is_over:
            raise ConnectionError("the socket is closed")
        try:
            await self._send(message)
        except ClientGone as gone:
            raise ConnectionError("the client is gone") from gone

    async def _send(self, message: Message) -> None:
        socket = self._socket
        match message["type"]:
            case "websocket.accept":
                await socket.accept(message.get("subprotocol"), list(message.get("headers") or ()))
            case "websocket.send":
                text = message.get("text")
                await socket.write(text if text is not None else message["bytes"])
            case "websocket.close" if socket.is_accepted:
                self._is_over = True
                await socket.close(message.get("code", wire.NORMAL), message.get("reason") or "")
            case "websocket.close":
                self._is_over = True
                await socket.answer(403, [], b"")
            case "websocket.http.response.start":
                self._denial = (message["status"], list(message.get("headers") or ()), b"")
            case "websocket.http.response.body" if self._denial is not None:
                status, headers, body = self._denial
                self._denial = (status, headers, body + message.get("body", b""))
                if not message.get("more_body", False):
                    self._is_over = True
                    await socket.answer(*self._denial)
            case unknown:
                raise RuntimeError(f"unexpected ASGI message {unknown!r}")
