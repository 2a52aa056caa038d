"""One connection to a broker: the handshake, the read buffer, the end. Owns the transport; never decides what
follows the end.

The transport writes what it receives into this object's buffer. The frames of one read are copied once, into
``bytes`` that their payloads are cut from. A frame longer than the buffer is read into memory of its own,
which grows with what has arrived, not with the length that the frame declares.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

from elbus_client.errors import (
    CODES,
    AccessDeniedError,
    DisconnectedError,
    Error,
    NameRefusedError,
    NameTakenError,
    NoPrimaryError,
    NotABrokerError,
    TlsError,
)
from elbus_client.receive.frame_queue import FrameQueue
from elbus_client.wire.constants import GREETING
from elbus_client.wire.deliveries import DeliveryParser, FrameError

BUFFER_BYTES = 256 * 1024
#: The buffer that the transport fills grows by at most this many bytes beyond what has arrived.
GROWTH_BYTES = 4 << 20

_FRAME_ERRORS = {
    "unknown-kind": "its kind is not one of the protocol",
    "too-long": "its length exceeds max_frame_bytes",
    "missing-nul": "a NUL is missing",
    "not-utf8": "a text is not UTF-8",
}


class Owner(Protocol):
    """What a connection belongs to."""

    def on_registered(self, connection: Connection) -> None:
        """The broker has registered the client. Called before frames are parsed."""
        ...

    def on_read(self) -> None:
        """The frames of a read have been parsed."""
        ...

    def on_lost(self, connection: Connection, error: Error) -> None:
        """A registered connection has ended."""
        ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """A connection, from the socket's first byte to its end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        parser: DeliveryParser[FrameQueue],
        address: str,
        name: str,
        hello: bytes,
        tls: bool,
    ) -> None:
        self._owner = owner
        self._parser = parser
        self._address = address
        self._name = name
        self._hello = hello
        self._tls = tls
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        #: The bytes that complete the incomplete frame, if it does not fit the usual buffer.
        self._needed = 0
        self._greeted = False
        self._codes = 0
        self._error: Error | None = None
        #: Ends with the registration or the error that prevented it.
        self.registered: asyncio.Future[None] = loop.create_future()
        #: Ends when the transport is closed.
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self.is_registered = False
        self.reads = 0
        self.bytes_received = 0

    # callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        if self.registered.done():
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._filled == len(self._buffer):
            # a large frame: memory grows with what has arrived
            grown = min(max(self._needed, BUFFER_BYTES), self._filled + max(self._filled, GROWTH_BYTES))
            self._resize(grown)
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.reads += 1
        self.bytes_received += nbytes
        self._filled += nbytes
        if self._filled < self._needed or self._error is not None:
            return
        try:
            if self._needed > BUFFER_BYTES:
                # the buffer is not longer than the frame
                self._parse_long()
                return
            data = bytes(self._view[: self._filled])
            if not self.is_registered:
                at = self._handshake(data)
                if not self.is_registered:
                    self._keep(data, at)
                    return
                data = data[at:]
            at = self._parse(data)
        except FrameError as error:
            detail = _FRAME_ERRORS.get(str(error).split(" ")[0], str(error))
            self.fail(DisconnectedError(f"the broker sent an invalid frame: {detail}"))
            return
        self._keep(data, at)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        error = self._error or self._reason(exc)
        self.transport = None
        self._resize(0)
        if not self.closed.done():
            self.closed.set_result(None)
        if not self.registered.done():
            self.registered.set_exception(error)
        if self.is_registered:
            self.is_registered = False
            self._owner.on_lost(self, error)

    def pause_writing(self) -> None:
        if self.is_registered:
            self._owner.pause_writing()

    def resume_writing(self) -> None:
        if self.is_registered:
            self._owner.resume_writing()

    # the rest

    def fail(self, error: Error) -> None:
        """Ends the connection at once for a reason."""
        if self._error is None:
            self._error = error
        if not self.registered.done():
            self.registered.set_exception(error)
        self.abort()

    def abort(self) -> None:
        """Closes the transport at once, if there is one."""
        if self.transport is not None:
            self.transport.abort()

    def _parse_long(self) -> None:
        try:
            self._parser.parse_one(self._view)
        finally:
            self._resize(BUFFER_BYTES, keep=False)
            self._filled = self._needed = 0
            self._owner.on_read()

    def _parse(self, data: bytes) -> int:
        try:
            return self._parser.parse(data)
        finally:
            self._owner.on_read()

    def _keep(self, data: bytes, at: int) -> None:
        """Keeps the bytes of the incomplete frame that ``data`` ends with."""
        rest = len(data) - at
        self._needed = self._parser.missing(data[at : at + 6]) if self.is_registered and rest >= 6 else 0
        if len(self._buffer) > BUFFER_BYTES and max(self._needed, rest) <= BUFFER_BYTES:
            self._resize(BUFFER_BYTES, keep=False)
        if rest:
            self._view[:rest] = memoryview(data)[at:]
        self._filled = rest

    def _resize(self, size: int, keep: bool = True) -> None:
        old = self._view
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        if keep and size:
            self._view[: self._filled] = old[: self._filled]

    def _handshake(self, data: bytes) -> int:
        """Performs the steps of the handshake that ``data`` allows. Returns how many bytes were used."""
        at = 0
        if not self._greeted:
            if not GREETING.startswith(data[:3]):
                self._refuse(f"sent {data[:3].hex()} instead of the greeting eb0100")
                return len(data)
            if len(data) < len(GREETING):
                return 0
            at = len(GREETING)
            self._greeted = True
            if self.transport is not None:
                self.transport.write(self._hello)
        while self._codes < 2 and at < len(data):
            code = data[at]
            at += 1
            if code != 0x01:
                self._refused(code, "name" if self._codes else "greeting")
                return len(data)
            self._codes += 1
        if self._codes == 2 and not self.registered.done():
            self.is_registered = True
            self._owner.on_registered(self)
            self.registered.set_result(None)
        return at

    def _refused(self, code: int, step: str) -> None:
        errors: dict[int, Error] = {
            0x76: NameTakenError(self._name),
            0x72: NameRefusedError(self._name, code),
            0x71: NoPrimaryError(self._name),
            0x79: AccessDeniedError(f"register as {self._name!r}"),
        }
        if code in errors:
            self.fail(errors[code])
        else:
            self._refuse(f"refused the {step} ({CODES.get(code, f'0x{code:02x}')})")

    def _refuse(self, reason: str) -> None:
        self.fail(NotABrokerError(self._address, reason))

    def _reason(self, exc: Exception | None) -> Error:
        """Returns why the transport was closed."""
        if isinstance(exc, ssl.SSLError) or (self._tls and exc is not None and not self.is_registered):
            error: Error = TlsError(self._address, str(exc))
        elif not self.is_registered and exc is None:
            error = NotABrokerError(self._address, "closed the connection during the handshake")
        elif exc is None:
            error = DisconnectedError("the broker has closed the connection")
        else:
            context = "" if self.is_registered else f"{self._address} during the handshake: "
            error = DisconnectedError(f"{context}{exc}")
        if exc is not None:
            error.__cause__ = exc
        return error
