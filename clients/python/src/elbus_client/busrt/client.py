"""The module ``client`` of busrt: blocking, with a function that receives frames in a thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, Union

from elbus_client import blocking
from elbus_client.blocking.runtime import Runtime, runtime
from elbus_client.busrt.names import (
    ERR_BUSY,
    ERR_CLIENT_NOT_REGISTERED,
    ERR_DATA,
    ERR_IO,
    ERR_NOT_DELIVERED,
    ERR_NOT_SUPPORTED,
    ERR_OTHER,
    ERR_TIMEOUT,
    OP_ACK,
    OP_BROADCAST,
    OP_MESSAGE,
    OP_NOP,
    OP_PUBLISH,
    OP_SUBSCRIBE,
    OP_UNSUBSCRIBE,
    RESPONSE_OK,
    Frame,
    body_of,
    received,
    refusal,
)
from elbus_client.connection.core import Core
from elbus_client.errors import DisconnectedError, Error, NoBrokerError
from elbus_client.wire.constants import WANTS_ACK
from elbus_client.wire.requests import HEADER_BYTES

__all__ = [
    "ERR_BUSY",
    "ERR_CLIENT_NOT_REGISTERED",
    "ERR_DATA",
    "ERR_IO",
    "ERR_NOT_DELIVERED",
    "ERR_NOT_SUPPORTED",
    "ERR_OTHER",
    "ERR_TIMEOUT",
    "OP_ACK",
    "OP_BROADCAST",
    "OP_MESSAGE",
    "OP_NOP",
    "OP_PUBLISH",
    "OP_SUBSCRIBE",
    "OP_UNSUBSCRIBE",
    "RESPONSE_OK",
    "Client",
    "ClientFrame",
    "Frame",
]


def on_frame_default(frame: Frame) -> None:
    """Ignores a frame."""


class ClientFrame:
    """A frame that has been sent."""

    def __init__(self, qos: int) -> None:
        self.qos = qos
        self.result = 0 if qos & 1 else RESPONSE_OK
        self.completed = threading.Event()
        if not qos & 1:
            self.completed.set()

    def is_completed(self) -> bool:
        """Returns whether the outcome is known."""
        return self.completed.is_set()

    def wait_completed(self, timeout: float | None = None) -> int:
        """Waits for the acknowledgement and returns its code."""
        if not self.completed.wait(timeout):
            raise TimeoutError
        return self.result

    def complete(self, code: int) -> None:
        """Sets the outcome."""
        self.result = code
        self.completed.set()


async def transmit(core: Core, frame: Frame, body: bytes, on_ack: Callable[[int], None]) -> None:
    """Queues a frame; raises if that is not possible."""
    core.check_size(0, len(body))
    await core.wait_for_space(len(body) + HEADER_BYTES)
    flag = frame.type | frame.qos << 6
    if flag & WANTS_ACK:
        core.send_with_callback(flag, (body,), on_ack)
    else:
        core.put(0, flag, body)


def raise_connection_error(error: Error) -> None:
    """Raises what ``connect`` of busrt raises: an error of the operating system, or the code of the
    broker.
    """
    if isinstance(error, NoBrokerError) and error.__cause__ is not None:
        raise error.__cause__
    if error.code is not None:
        raise refusal(error) from error


class Client:
    """A client of busrt."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name
        self.ping_interval: float = 1
        self.timeout: float = 5
        self.on_frame: Callable[[Frame], Any] = on_frame_default
        self._client: blocking.Client | None = None
        self._runtime: Runtime | None = None
        self._pending: set[ClientFrame] = set()

    def connect(self) -> None:
        """Connects and starts the thread that calls ``on_frame``."""
        try:
            self._client = blocking.connect(
                self.path, self.name, timeout=self.timeout, ping_interval=self.ping_interval
            )
        except Error as error:
            raise_connection_error(error)
            raise
        self._runtime = runtime()
        frames = self._client.frames
        threading.Thread(target=self._receive, args=(frames,), name="elbus-busrt", daemon=True).start()

    def _receive(self, frames: blocking.Frames) -> None:
        for frame in frames:
            try:
                self.on_frame(received(frame))
            except Exception:
                import traceback

                traceback.print_exc()
        for operation in list(self._pending):
            operation.complete(ERR_IO)

    def disconnect(self) -> None:
        """Disconnects."""
        if self._client is not None:
            self._client.close()

    def is_connected(self) -> bool:
        """Returns whether the client is connected."""
        return self._client is not None and self._client.is_connected

    def send(self, target: Union[str, bytes, None] = None, frame: Frame | None = None) -> ClientFrame:
        """Sends a frame; the returned object waits for the acknowledgement."""
        if frame is None:
            frame = Frame()
        return self.send_with(target, frame, ClientFrame(frame.qos))

    def send_with(self, target: Union[str, bytes, None], frame: Frame, operation: ClientFrame) -> ClientFrame:
        """Sends a frame; ``operation`` is completed with the acknowledgement."""
        if self._client is None or self._runtime is None:
            raise DisconnectedError("call connect first")
        core = self._client.core

        def on_ack(code: int) -> None:
            self._pending.discard(operation)
            operation.complete(code)

        if frame.qos & 1:
            self._pending.add(operation)
        try:
            self._run(transmit(core, frame, body_of(target, frame), on_ack))
        except BaseException:
            self._pending.discard(operation)
            raise
        return operation

    def _run(self, coroutine: Any) -> None:
        assert self._runtime is not None
        future: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(
            coroutine, self._runtime.loop
        )
        future.result()

    def subscribe(self, topics: Union[str, list[str]]) -> ClientFrame:
        """Subscribes to filters."""
        return self._filters(OP_SUBSCRIBE, topics)

    def unsubscribe(self, topics: Union[str, list[str]]) -> ClientFrame:
        """Unsubscribes from filters."""
        return self._filters(OP_UNSUBSCRIBE, topics)

    def _filters(self, op: int, topics: Union[str, list[str]]) -> ClientFrame:
        frame = Frame(tp=op)
        frame.topic = topics if isinstance(topics, list) else [topics]
        return self.send(None, frame)
