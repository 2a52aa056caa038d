"""Frames without acknowledgement on their way from any thread to the event loop. Owns its limit and its lock.

Frames of a loop of sends take one hop between the threads for many of them.
"""

from __future__ import annotations

import asyncio
import threading

from elbus_client.connection.core import Core
from elbus_client.errors import TimedOutError

#: Bytes that are staged before a sender waits for the event loop.
STAGED_BYTES = 1 << 20


class Staging:
    """The frames that threads have sent and the loop has not yet queued."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # a leaf: nothing else is locked while it is held
        self._changed = threading.Condition(threading.Lock())
        self._parts: list[bytes] = []
        self._bytes = 0
        self._frames = 0
        self._scheduled = False
        self._waiting: asyncio.Task[None] | None = None

    def put(self, header: bytes, head: bytes, payload: bytes) -> None:
        """Stages a frame; waits while too much is staged. Raises if there is no connection."""
        core = self._core
        size = len(header) + len(head) + len(payload)
        with self._changed:
            if core.send_queue.transport is None:
                raise core.unavailable()
            if self._bytes + size > STAGED_BYTES and self._bytes:
                self._wait(size)
            self._parts += (header, head, payload)
            self._bytes += size
            self._frames += 1
            if self._scheduled:
                return
            self._scheduled = True
        core.loop.call_soon_threadsafe(self._drain)

    def _wait(self, size: int) -> None:
        core, after = self._core, self._core.settings.timeout

        def has_space() -> bool:
            return self._bytes + size <= STAGED_BYTES or not self._bytes or core.send_queue.transport is None

        if not self._changed.wait_for(has_space, after):
            raise TimedOutError(
                f"waiting for space in the send queue (the broker at {core.address} does not read)", after
            )
        if core.send_queue.transport is None:
            raise core.unavailable()

    def _drain(self) -> None:
        """Queues what is staged. Runs in the loop."""
        queue = self._core.send_queue
        if queue.transport is not None and queue.queued > queue.limit:
            if self._waiting is None:
                self._waiting = self._core.loop.create_task(self._drain_later())
            return
        with self._changed:
            parts, self._parts = self._parts, []
            size, self._bytes = self._bytes, 0
            frames, self._frames = self._frames, 0
            self._scheduled = False
            self._changed.notify_all()
        if queue.transport is not None:
            queue.parts += parts
            queue.queued += size
            queue.gathered += frames
            queue.flush()

    async def _drain_later(self) -> None:
        core = self._core
        try:
            await core.send_queue.wait_for_space(1, float("inf"), str(core.address))
        finally:
            self._waiting = None
        self._drain()

    def drain_before(self) -> None:
        """Queues what is staged before an operation of the same thread. Runs in the loop."""
        if self._parts:
            self._drain()
