"""Outcomes that must arrive in time. Owns the futures and one timer for all of them; never sends."""

from __future__ import annotations

import asyncio

from elbus_client.errors import Error, TimedOutError

#: A deadline is reached this much early: clocks have a resolution.
TOLERANCE = 1e-6


class Pending:
    """An outcome that is awaited: an operation's, or a call's."""

    __slots__ = ("deadline", "future", "operation", "target")

    def __init__(self, future: asyncio.Future[object], deadline: float, operation: str, target: str) -> None:
        self.future = future
        self.deadline = deadline
        self.operation = operation
        self.target = target


class Deadlines:
    """Awaited outcomes by id. All have the same time limit, so their deadlines are in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: float) -> None:
        self._loop = loop
        self._after = after
        self._timer: asyncio.TimerHandle | None = None
        self.entries: dict[int, Pending] = {}

    def add(self, id: int, operation: str, target: str) -> asyncio.Future[object]:
        """Registers an outcome. The future ends with it, or with an error at the deadline."""
        loop = self._loop
        future: asyncio.Future[object] = loop.create_future()
        deadline = loop.time() + self._after
        self.entries[id] = Pending(future, deadline, operation, target)
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        return future

    def pop(self, id: int) -> Pending | None:
        """Removes an outcome that has arrived, or is awaited no more."""
        return self.entries.pop(id, None)

    def fail_all(self, error: Error) -> None:
        """Ends all of them with an error."""
        entries, self.entries = self.entries, {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for entry in entries.values():
            if not entry.future.done():
                entry.future.set_exception(error.fresh())

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time() + TOLERANCE
        expired: list[int] = []
        for id, entry in self.entries.items():
            if entry.deadline > now:
                self._timer = self._loop.call_at(entry.deadline, self._expire)
                break
            expired.append(id)
        for id in expired:
            entry = self.entries.pop(id)
            if not entry.future.done():
                operation = f"{entry.operation} {entry.target!r}"
                entry.future.set_exception(TimedOutError(operation, self._after))
