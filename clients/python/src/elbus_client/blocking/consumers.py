"""Blocking consumers: frames, subscriptions, events, cursors. Own the frames that were handed over at
once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

import elbus_client.api.consumers as aio
from elbus_client.blocking.runtime import Runtime
from elbus_client.errors import TimedOutError
from elbus_client.events import ConnectionEvent, ConnectionEvents
from elbus_client.frame import Frame
from elbus_client.rpc.cursor import Cursor as AsyncCursor
from elbus_client.settings import number

R = TypeVar("R")


class Frames:
    """Messages, broadcasts, and publications without a consumer of their own; ``Client.frames``. An
    iterator.
    """

    def __init__(self, runtime: Runtime, frames: aio.Frames) -> None:
        self._runtime = runtime
        self._source = frames
        self._ready: deque[Frame] = deque()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        # several threads can iterate: popping decides who gets a frame
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                if not self._fetch(None):
                    raise StopIteration from None

    def next(self, timeout: float | None = None) -> Frame | None:
        """Returns the next frame; ``None`` at the end. Raises :class:`TimedOutError` after ``timeout``
        seconds.
        """
        if timeout is not None:
            number("timeout", timeout, 0)
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                if not self._fetch(timeout):
                    return None

    def try_next(self) -> Frame | None:
        """Returns the next frame if one is queued. Does not wait."""
        try:
            return self._ready.popleft()
        except IndexError:
            self._ready.extend(self._runtime.run(self._take_now()))
        return self._ready.popleft() if self._ready else None

    def batch(self) -> list[Frame]:
        """Returns queued frames, at least one; none at the end. Cheaper than one frame at a time."""
        taken: list[Frame] = []
        while self._ready:
            taken.append(self._ready.popleft())
        return taken or self._runtime.run(self._source.batch())

    @property
    def missed(self) -> int:
        """How many frames have been dropped so far: by the client because they were not taken in time, or by
        the broker because of the options latest, every or lossy.
        """
        return self._source.missed

    def _fetch(self, timeout: float | None) -> bool:
        if timeout is None:
            frames = self._runtime.run(self._source.batch())
        else:
            frames = self._runtime.run(self._batch_within(timeout))
        self._ready.extend(frames)
        return bool(frames)

    async def _take_now(self) -> list[Frame]:
        return self._source.take_all()

    async def _batch_within(self, timeout: float) -> list[Frame]:
        try:
            await asyncio.wait_for(self._source.wait(), timeout)
        except asyncio.TimeoutError:
            frames = self._source.take_all()
            if not frames:
                raise TimedOutError("waiting for a frame", timeout) from None
            return frames
        return self._source.take_all()


class Subscription(Frames):
    """Publications that match some filters; from ``Client.subscribe``. An iterator and a context manager."""

    def __init__(self, runtime: Runtime, subscription: aio.Subscription) -> None:
        super().__init__(runtime, subscription)
        self._subscription = subscription
        #: The filters with their options.
        self.filters = subscription.filters

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runtime.run(self._subscription.__aexit__(kind, error, traceback))

    def unsubscribe(self) -> None:
        """Unsubscribes and waits for the broker's acknowledgement. What is queued can still be taken."""
        self._runtime.run(self._subscription.unsubscribe())


class Events:
    """The changes of a connection; from ``Client.events``. An iterator."""

    def __init__(self, runtime: Runtime, events: ConnectionEvents) -> None:
        self._runtime = runtime
        self._events = events

    def __iter__(self) -> Iterator[ConnectionEvent]:
        return self

    def __next__(self) -> ConnectionEvent:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: float | None = None) -> ConnectionEvent | None:
        """Returns the next event; ``None`` at the end. Raises :class:`TimedOutError` after ``timeout``
        seconds.
        """
        return self._runtime.run(self._next(timeout))

    def try_next(self) -> ConnectionEvent | None:
        """Returns the next event if there is one. Does not wait."""
        return self._runtime.run(self._try_next())

    def close(self) -> None:
        """Ends this listener."""
        self._runtime.loop.call_soon_threadsafe(self._events.close)

    async def _try_next(self) -> ConnectionEvent | None:
        return self._events.try_next()

    async def _next(self, timeout: float | None) -> ConnectionEvent | None:
        if timeout is None:
            return await self._events.next()
        try:
            return await asyncio.wait_for(self._events.next(), number("timeout", timeout, 0))
        except asyncio.TimeoutError:
            raise TimedOutError("waiting for an event", timeout) from None


class Cursor(Generic[R]):
    """A long result that is fetched in parts; from ``Client.cursor``. An iterator."""

    def __init__(self, runtime: Runtime, cursor: AsyncCursor[R]) -> None:
        self._runtime = runtime
        self._cursor = cursor

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        found = self._runtime.run(self._cursor.fetch())
        if not found:
            raise StopIteration
        return found[0]

    def __enter__(self) -> Cursor[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runtime.run(self._cursor.__aexit__(kind, error, traceback))

    def next(self) -> R | None:
        """Returns the next item; ``None`` at the end."""
        return self._runtime.run(self._cursor.next())

    def block(self, count: int) -> list[R]:
        """Returns the next ``count`` items; fewer at the end, and none after it."""
        return self._runtime.run(self._cursor.block(count))
