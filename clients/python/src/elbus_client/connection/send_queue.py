"""The sending side of a client. Owns the frames to be written and the decision when to write; never reads.

All frames of one iteration of the event loop leave in one write. A loop of sends that never waits is written
after every 512 frames, and other tasks run then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Union

from elbus_client.errors import DisconnectedError, Error, TimedOutError
from elbus_client.wire.constants import PING

#: Frames, or bytes, after which a sender that never waits lets the event loop run.
GATHERED_FRAMES = 512
GATHERED_BYTES = 256 * 1024
#: Limit of one write; beyond it the transport can pause in between.
WRITE_BYTES = 1 << 20
#: Limits of the transport's own buffer.
TRANSPORT_HIGH = 256 * 1024
TRANSPORT_LOW = 64 * 1024


class SendQueue:
    """Frames that are queued for writing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._loop = loop
        self.limit = limit
        self.parts: list[Union[bytes, memoryview]] = []
        self.queued = 0
        #: Frames since the last flush.
        self.gathered = 0
        self.transport: asyncio.Transport | None = None
        #: Why there is no transport.
        self.error: Error = DisconnectedError("not yet connected")
        self.paused = False
        self.scheduled = False
        self.frames = 0
        self.bytes = 0
        self._sent_since_ping = 0
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._drained: list[asyncio.Future[None]] = []

    def attach(self, transport: asyncio.Transport) -> None:
        """Writes to a new connection from now on."""
        transport.set_write_buffer_limits(TRANSPORT_HIGH, TRANSPORT_LOW)
        self.transport = transport
        self.paused = False
        self._clear()

    def detach(self, error: Error) -> None:
        """Drops what is queued: without a connection nothing can be sent."""
        self.transport = None
        self.error = error
        self._clear()
        waiters, self._waiters = self._waiters, deque()
        for waiter, _ in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._release_drained()

    def _clear(self) -> None:
        self.parts.clear()
        self.queued = 0

    def put(self, *parts: bytes) -> None:
        """Queues the parts of a frame, beyond the limit as well."""
        self.parts += parts
        size = sum(map(len, parts))
        self.queued += size
        self.gathered += 1
        if not self.scheduled:
            self.schedule()

    def put_ping(self) -> None:
        """Queues a ping, which is no reason to leave out the next one."""
        self.parts.append(PING)
        self.queued += len(PING)
        self.frames += 1
        if not self.scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Has the queue written before the event loop waits."""
        self.scheduled = True
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what is queued, as far as the transport takes it."""
        self.scheduled = False
        count, self.gathered = self.gathered, 0
        self.frames += count
        self._sent_since_ping += count
        transport, parts = self.transport, self.parts
        if transport is None or not parts or self.paused:
            return
        if self.queued <= WRITE_BYTES:
            data = b"".join(parts)
            parts.clear()
            self.queued = 0
            self.bytes += len(data)
            transport.write(data)
        else:
            self._flush_pieces(transport)
        if self._waiters and self.queued <= self.limit // 2:
            self._release_waiters()
        if self._drained and not self.parts:
            self._release_drained()

    def _flush_pieces(self, transport: asyncio.Transport) -> None:
        pending = deque(self.parts)
        self.parts.clear()
        while pending and not self.paused and self.transport is transport:
            batch: list[Union[bytes, memoryview]] = []
            size = 0
            while pending and size < WRITE_BYTES:
                part = pending.popleft()
                if size + len(part) > WRITE_BYTES:
                    rest = memoryview(part)
                    pending.appendleft(rest[WRITE_BYTES - size :])
                    part = rest[: WRITE_BYTES - size]
                batch.append(part)
                size += len(part)
            self.queued -= size
            self.bytes += size
            transport.write(b"".join(batch))
        if self.transport is transport:
            self.parts[:0] = pending

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self.paused = False
        self.flush()

    def is_full(self, size: int) -> bool:
        """Returns whether a frame of this size has to wait."""
        return self.queued > 0 and self.queued + size > self.limit

    async def wait_for_space(self, size: int, after: float, address: str) -> None:
        """Waits until there can be space for a frame, or the connection has ended."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append((waiter, size))
        timer = self._loop.call_later(after, self._expire, waiter, after, address)
        try:
            await waiter
        finally:
            timer.cancel()

    @staticmethod
    def _expire(waiter: asyncio.Future[None], after: float, address: str) -> None:
        if not waiter.done():
            operation = f"waiting for space in the send queue (the broker at {address} does not read)"
            waiter.set_exception(TimedOutError(operation, after))

    def _release_waiters(self) -> None:
        # in order, as many as there is space for; each checks again
        expected = self.queued
        while self._waiters and expected <= self.limit:
            waiter, size = self._waiters.popleft()
            if not waiter.done():
                expected += size
                waiter.set_result(None)

    def drained(self) -> asyncio.Future[None]:
        """Returns a future that ends when everything is handed to the transport, or the connection has
        ended.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self.parts and self.transport is not None:
            self._drained.append(future)
        else:
            future.set_result(None)
        return future

    def _release_drained(self) -> None:
        drained, self._drained = self._drained, []
        for future in drained:
            if not future.done():
                future.set_result(None)

    def is_idle(self) -> bool:
        """Returns whether nothing was sent since this was called last."""
        idle = not self._sent_since_ping and not self.gathered
        self._sent_since_ping = 0
        return idle
