"""A line between a client and the product that tests cut: a TCP proxy."""

import contextlib
import socket
import threading


class Line:
    """Passes connections on to a port of this machine until they are cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.port = self._listener.getsockname()[1]
        self.opened = 0
        """Connections so far."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections on both sides."""
        for client, server in self._pairs:
            _shut(client)
            _shut(server)

    def lose(self) -> None:
        """End all connections on the side of the clients; the product is not told."""
        for client, _ in self._pairs:
            _shut(client)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.opened += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                self._pairs.append((client, server))
                threading.Thread(target=_pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=_pass, args=(server, client, False), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket, is_from_client: bool) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    if not is_from_client:
        _shut(sink)  # the product has closed it


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
