"""Pauses the reading of a connection while consumers are over their limits. Owns the decision; never a
queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import Protocol

from elbus_client.receive.frame_queue import OVERCOMMIT, FrameQueue

LOG = logging.getLogger("elbus_client")


class Pausable(Protocol):
    """A transport whose reading can be paused."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class FlowControl:
    """Pauses and resumes one client's reading.

    A consumer that takes nothing for ``hold_limit`` is no longer waited for: a broker disconnects a client
    that reads nothing for its ``stall_seconds``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        hold_limit: float,
        in_flight: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._name = name
        self._hold_limit = hold_limit
        self._transport: Pausable | None = None
        self._over: dict[FrameQueue, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = in_flight
        self.paused = False

    def attach(self, transport: Pausable) -> None:
        """Controls the transport of a new connection, whose reading is not paused."""
        self._transport = transport
        self.paused = False
        self.update()

    def detach(self) -> None:
        """The connection has ended."""
        self._transport = None
        self.paused = False
        self._cancel_timer()

    def over_limit(self, queue: FrameQueue) -> None:
        """A queue is over its limit."""
        if not queue.is_over:
            queue.is_over = True
            self._over[queue] = queue.progress()
        self.update()

    def below_limit(self, queue: FrameQueue) -> None:
        """A queue that was over its limit has room."""
        if queue.bytes <= queue.limit // 2:
            queue.is_over = False
            self._over.pop(queue, None)
        self.update()

    def update(self) -> None:
        """Pauses or resumes the reading, as the queues require."""
        factor = OVERCOMMIT if self._in_flight() else 1
        pause = any(
            not queue.stalled and queue.bytes > queue.limit * (factor if factor > 1 else 0.5)
            for queue in self._over
        )
        if pause == self.paused or self._transport is None:
            return
        self.paused = pause
        # a transport that is being closed can refuse
        with contextlib.suppress(RuntimeError):
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        if pause:
            self._arm()
        else:
            self._cancel_timer()

    def _arm(self) -> None:
        if self._timer is None and math.isfinite(self._hold_limit):
            for queue in self._over:
                self._over[queue] = queue.progress()
            self._timer = self._loop.call_later(self._hold_limit, self._check_progress)

    def _check_progress(self) -> None:
        self._timer = None
        for queue, before in list(self._over.items()):
            if queue.progress() == before and not queue.stalled:
                queue.stalled = True
                LOG.warning(
                    "received frames are not consumed; dropping further ones client=%r hold_limit=%g",
                    self._name,
                    self._hold_limit,
                )
        self.update()
        if self.paused:
            self._arm()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
