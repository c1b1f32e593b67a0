"""A TCP relay before a server, through which a store becomes slow, or refuses for a while.

with Relay(("127.0.0.1", port)) as relay:
    relay.address               # where to connect
    relay.delay = 0.2           # seconds before each piece that goes to the server
    relay.refuses = True        # ends all connections, and those to come
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

PIECE = 1 << 16


class Relay:
    """Between clients and one server."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.delay = 0.0
        self._server, self._refuses = server, False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True, name="relay").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # `close` alone leaves `accept` waiting
        self._listener.close()
        self.refuses = True

    @property
    def refuses(self) -> bool:
        """Whether it ends every connection at once."""
        return self._refuses

    @refuses.setter
    def refuses(self, value: bool) -> None:
        self._refuses = value
        for each in list(self._open) if value else []:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self._refuses:
                    client.close()
                else:
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._server) as server:
            self._open |= {client, server}
            back = threading.Thread(target=_copy, args=(server, client, lambda: 0.0), daemon=True)
            back.start()
            _copy(client, server, lambda: self.delay)
            back.join()
            self._open -= {client, server}


def _copy(source: socket.socket, target: socket.socket, delay) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            time.sleep(delay())
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
