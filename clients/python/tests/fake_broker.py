"""A peer that does what a test says, in a thread. Owns its socket; knows the handshake only."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator

Behaviour = Callable[[socket.socket], None]


@contextlib.contextmanager
def peer(behaviour: Behaviour) -> Iterator[str]:
    """Listens and runs the behaviour for each connection, which it then closes. Yields the address."""
    with tempfile.TemporaryDirectory(prefix="elbus-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(pathlib.Path(folder) / "bus.sock")
        listener.bind(path)
        listener.listen(16)
        open_connections: list[socket.socket] = []

        def handle(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                behaviour(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                open_connections.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        for connection in open_connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def register(connection: socket.socket) -> None:
    """Performs the handshake."""
    connection.sendall(b"\xeb\x01\x00")
    receive(connection, 3)
    length = int.from_bytes(receive(connection, 2), "little")
    receive(connection, length)
    connection.sendall(b"\x01\x01")


def receive(connection: socket.socket, count: int) -> bytes:
    """Receives an exact number of bytes."""
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def until_closed(connection: socket.socket) -> None:
    """Reads until the client closes the connection."""
    while connection.recv(1 << 16):
        pass
