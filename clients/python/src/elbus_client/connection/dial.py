"""Connects to an address. Owns the sockets until they are connected; never speaks the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable

from elbus_client.address import Address
from elbus_client.errors import NoBrokerError, TlsError

#: Interval of attempts while the broker runs but has not accepted earlier connections yet, in seconds.
BACKLOG_RETRY = 0.01


async def dial(
    loop: asyncio.AbstractEventLoop,
    address: Address,
    tls: ssl.SSLContext | None,
    timeout: float,
    factory: Callable[[], asyncio.BaseProtocol],
) -> None:
    """Connects; the protocol of ``factory`` gets the transport.

    Raises :class:`NoBrokerError` or :class:`TlsError`.
    """
    try:
        if address.transport == "unix":
            await _dial_unix(loop, address, factory)
        else:
            await _dial_network(loop, address, tls, timeout, factory)
    except ssl.SSLError as error:
        raise TlsError(str(address), error.reason or str(error)) from error
    except (OSError, UnicodeError) as error:
        raise NoBrokerError(str(address), _reason(error)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


async def _dial_unix(
    loop: asyncio.AbstractEventLoop, address: Address, factory: Callable[[], asyncio.BaseProtocol]
) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address.path)
                break
            except BlockingIOError:
                await asyncio.sleep(BACKLOG_RETRY)
        if address.default:
            _check_owner(address, sock)
        await loop.create_unix_connection(factory, sock=sock)
    except BaseException:
        sock.close()
        raise


def _check_owner(address: Address, sock: socket.socket) -> None:
    if not hasattr(socket, "SO_PEERCRED"):
        return
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if not address.may_be_served_by(uid):
        raise PermissionError(
            f"served by user {uid}, who is neither root nor the user of this program; if that is intended, "
            "give the address explicitly"
        )


async def _dial_network(
    loop: asyncio.AbstractEventLoop,
    address: Address,
    tls: ssl.SSLContext | None,
    timeout: float,
    factory: Callable[[], asyncio.BaseProtocol],
) -> None:
    if tls is None and address.transport == "tls":
        tls = ssl.create_default_context()
    server_name = address.host if tls is not None else None
    transport, _ = await loop.create_connection(
        factory, address.host, address.port, ssl=tls, server_hostname=server_name
    )
    sock: socket.socket | None = transport.get_extra_info("socket")
    option: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None:
        # detects a lost peer although only pings are sent
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, min(int(timeout * 2000), 0x7FFFFFFF))
