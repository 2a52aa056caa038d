"""An event loop whose clock the test moves. Owns the time; sockets are real."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Mapping
from typing import Any


class _Selector(selectors.BaseSelector):
    """Never waits: reports instead that the loop has nothing to do."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = self._real.select(0)
        if not found and (timeout is None or timeout > 0):
            if self._loop.on_idle():
                return []
            return self._real.select(0.05 if timeout is None else min(timeout, 0.05))
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that knows when it is idle, and whose time passes only by ``advance``."""

    def __init__(self) -> None:
        self._now = 1000.0
        #: Threads that run and can still do something with the loop.
        self.active_threads = 0
        self._lock = threading.Lock()
        self._idle: list[asyncio.Future[None]] = []
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def on_idle(self) -> bool:
        """Resumes what waits for idleness. Returns whether anything did."""
        if self.active_threads:
            return False
        waiters, self._idle = self._idle, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return bool(waiters)

    def count_threads(self, change: int) -> None:
        """A thread runs, or waits for the loop. Called from any thread."""
        with self._lock:
            self.active_threads += change

    async def settle(self) -> None:
        """Waits until nothing more happens without the passing of time or bytes from outside."""
        waiter = self.create_future()
        self._idle.append(waiter)
        await waiter

    async def advance(self, seconds: float) -> None:
        """Lets time pass; whatever is due in between happens in order."""
        target = self._now + seconds
        while True:
            await self.settle()
            due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
            if not due or min(due) > target + 1e-9:
                break
            self._now = max(self._now, min(due))
            await self.settle()
        self._now = target
        await self.settle()
