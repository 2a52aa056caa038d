"""The address of a broker. Owns its text form; never connects."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Literal

from elbus_client.errors import BadAddressError

#: Sockets that only root can create.
MACHINE_SOCKETS = ("/run/elbus/bus.sock", "/run/elbus.sock")
SOCKET_SUFFIXES = (".sock", ".socket", ".ipc")


@dataclass(frozen=True)
class Address:
    """The address of a broker: a UNIX socket, TCP, or TCP under TLS.

    ``default`` marks the path that :func:`default_address` has found. It is used only if it is served by root
    or the user of this process, or if only root can create it.

    >>> str(Address.parse("tls://broker.plant:7778"))
    'tls://broker.plant:7778'
    """

    transport: Literal["unix", "tcp", "tls"]
    path: str = ""
    host: str = ""
    port: int = 0
    default: bool = False

    @staticmethod
    def parse(address: str | os.PathLike[str] | Address | None) -> Address:
        """Parses an address.

        A path that starts with ``/``, ends in ``.sock``, ``.socket`` or ``.ipc``, or follows ``unix:`` is a
        UNIX socket. All else is ``host:port``, with or without ``tcp:``, or with ``tls://`` for TLS.
        ``None`` is the default socket of this machine.
        """
        if address is None:
            return default_address()
        if isinstance(address, Address):
            return address
        if isinstance(address, os.PathLike):
            path = os.fspath(address)
            if not isinstance(path, str) or not path:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise BadAddressError(address)
            return Address("unix", path=path)
        if not isinstance(address, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadAddressError(address)
        text = address.strip()
        for scheme in ("tcp", "unix"):
            if text.startswith(f"{scheme}://"):
                text = f"{scheme}:{text[len(scheme) + 3 :]}"
        if text.startswith("tls:"):
            return _host_port("tls", text[4:].removeprefix("//"), address)
        if text.startswith("unix:"):
            path = text[5:]
        elif text.startswith("/") or text.endswith(SOCKET_SUFFIXES):
            path = text
        else:
            return _host_port("tcp", text.removeprefix("tcp:"), address)
        if not path or path.startswith("@") or "\0" in path:
            raise BadAddressError(address)
        return Address("unix", path=path)

    def may_be_served_by(self, uid: int) -> bool:
        """Returns whether a broker that runs as this user is trusted."""
        return not self.default or uid in (0, os.geteuid()) or self.path in MACHINE_SOCKETS

    def __str__(self) -> str:
        if self.transport == "unix":
            plain = self.path.startswith("/") or self.path.endswith(SOCKET_SUFFIXES)
            return self.path if plain else f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls://' if self.transport == 'tls' else ''}{host}:{self.port}"


def _host_port(transport: Literal["tcp", "tls"], text: str, whole: str) -> Address:
    host, colon, port = text.rpartition(":")
    if (
        not colon
        or not host
        or not port.isascii()
        or not port.isdigit()
        or int(port[:6]) > 65535
        or "\0" in host
    ):
        raise BadAddressError(whole)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif host.startswith("fifo:") or "/" in host:
        raise BadAddressError(whole)
    return Address(transport, host=host, port=int(port))


def default_address() -> Address:
    """Returns the first of these sockets that exists: ``$XDG_RUNTIME_DIR/elbus.sock``,
    ``/run/elbus/bus.sock``, ``/run/elbus.sock``, ``/tmp/elbus.sock``; if none exists, the default of
    ``elbusd`` started by this user.
    """
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    own = os.path.join(runtime_dir, "elbus.sock") if runtime_dir and os.path.isdir(runtime_dir) else None
    candidates = [*([own] if own else []), *MACHINE_SOCKETS, "/tmp/elbus.sock"]
    for path in candidates:
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                return Address("unix", path=path, default=True)
        except OSError:
            continue
    path = own or ("/run/elbus.sock" if os.geteuid() == 0 else "/tmp/elbus.sock")
    return Address("unix", path=path, default=True)
