"""The module ``client`` of busrt-async, with a coroutine function that receives frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Union

from elbus_client.api.client import Client as AsyncClient
from elbus_client.api.client import connect
from elbus_client.busrt.client import raise_connection_error, transmit
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
)
from elbus_client.errors import DisconnectedError, Error

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


LOG = logging.getLogger("elbus_client")


async def on_frame_default(frame: Frame) -> None:
    """Ignores a frame."""


class ClientFrame:
    """A frame that has been sent."""

    def __init__(self, qos: int) -> None:
        self.qos = qos
        self.result = 0 if qos & 1 else RESPONSE_OK
        self.completed = asyncio.Event()
        if not qos & 1:
            self.completed.set()

    def is_completed(self) -> bool:
        """Returns whether the outcome is known."""
        return self.completed.is_set()

    async def wait_completed(self, timeout: float | None = None) -> int:
        """Waits for the acknowledgement and returns its code."""
        await asyncio.wait_for(self.completed.wait(), timeout)
        return self.result

    def complete(self, code: int) -> None:
        """Sets the outcome."""
        self.result = code
        self.completed.set()


class Client:
    """A client of busrt-async."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name
        self.ping_interval: float = 1
        self.timeout: float = 5
        self.on_frame: Callable[[Frame], Awaitable[Any]] = on_frame_default
        self._client: AsyncClient | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._pending: set[ClientFrame] = set()

    async def connect(self) -> None:
        """Connects and starts the task that calls ``on_frame``."""
        try:
            self._client = await connect(
                self.path, self.name, timeout=self.timeout, ping_interval=self.ping_interval
            )
        except Error as error:
            raise_connection_error(error)
            raise
        self._receiver = asyncio.get_running_loop().create_task(self._receive(self._client))

    async def _receive(self, client: AsyncClient) -> None:
        async for frame in client.frames:
            try:
                await self.on_frame(received(frame))
            except Exception:
                LOG.exception("on_frame raised client=%r", self.name)
        for operation in list(self._pending):
            operation.complete(ERR_IO)

    async def disconnect(self) -> None:
        """Disconnects."""
        if self._client is not None:
            await self._client.close()

    def is_connected(self) -> bool:
        """Returns whether the client is connected."""
        return self._client is not None and self._client.is_connected

    async def send(self, target: Union[str, bytes, None] = None, frame: Frame | None = None) -> ClientFrame:
        """Sends a frame; the returned object waits for the acknowledgement."""
        if frame is None:
            frame = Frame()
        return await self.send_with(target, frame, ClientFrame(frame.qos))

    async def send_with(
        self, target: Union[str, bytes, None], frame: Frame, operation: ClientFrame
    ) -> ClientFrame:
        """Sends a frame; ``operation`` is completed with the acknowledgement."""
        if self._client is None:
            raise DisconnectedError("call connect first")

        def on_ack(code: int) -> None:
            self._pending.discard(operation)
            operation.complete(code)

        if frame.qos & 1:
            self._pending.add(operation)
        try:
            await transmit(self._client.core, frame, body_of(target, frame), on_ack)
        except BaseException:
            self._pending.discard(operation)
            raise
        return operation

    async def subscribe(self, topics: Union[str, list[str]]) -> ClientFrame:
        """Subscribes to filters."""
        return await self._filters(OP_SUBSCRIBE, topics)

    async def unsubscribe(self, topics: Union[str, list[str]]) -> ClientFrame:
        """Unsubscribes from filters."""
        return await self._filters(OP_UNSUBSCRIBE, topics)

    async def _filters(self, op: int, topics: Union[str, list[str]]) -> ClientFrame:
        frame = Frame(tp=op)
        frame.topic = topics if isinstance(topics, list) else [topics]
        return await self.send(None, frame)
