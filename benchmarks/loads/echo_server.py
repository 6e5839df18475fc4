"""The WebSocket upstream of all proxies: it returns each message."""

from __future__ import annotations

import sys
from typing import Any

import picows
import uvloop


class Echo(picows.WSListener):
    """One connection."""

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Return a message, or complete the closing handshake."""
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


async def serve(port: int) -> None:
    """Serve until the process is terminated."""
    server = await picows.ws_create_server(lambda _: Echo(), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
