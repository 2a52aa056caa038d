"""The changes of a connection. Owns the queue of events for each listener; takes no action."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Union

#: Events that are queued for a slow listener.
QUEUED_EVENTS = 64


@dataclass(frozen=True)
class Connected:
    """The client is connected again: registered, and its subscriptions take effect before any operation that
    follows.
    """


@dataclass(frozen=True)
class Disconnected:
    """The connection was lost."""

    reason: str


@dataclass(frozen=True)
class Retrying:
    """An attempt to reconnect follows after a delay in seconds. ``attempt`` counts from 1."""

    attempt: int
    after: float
    reason: str


@dataclass(frozen=True)
class Closed:
    """The client has ended. No event follows."""

    reason: str


@dataclass(frozen=True)
class Missed:
    """This many events were dropped because the listener is slow."""

    count: int


ConnectionEvent = Union[Connected, Disconnected, Retrying, Closed, Missed]


class ConnectionEvents:
    """The changes of a connection since ``Client.events`` was called; an async iterator."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sender: EventSender, ended: bool) -> None:
        self._loop = loop
        self._sender = sender
        self._queue: deque[ConnectionEvent] = deque()
        self._missed = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._ended = ended

    def __aiter__(self) -> ConnectionEvents:
        return self

    async def __anext__(self) -> ConnectionEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self) -> ConnectionEvent | None:
        """Returns the next event; ``None`` after :class:`Closed`. Cancellation loses no event."""
        while True:
            event = self.try_next()
            if event is not None:
                return event
            if self._ended:
                return None
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def try_next(self) -> ConnectionEvent | None:
        """Returns the next event if there is one. Does not wait."""
        if self._missed:
            count, self._missed = self._missed, 0
            return Missed(count)
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        """Ends this listener."""
        self._ended = True
        self._sender.forget(self)
        self._wake()

    def push(self, event: ConnectionEvent) -> None:
        """Queues an event; the oldest one is dropped if the listener is slow."""
        if len(self._queue) == QUEUED_EVENTS:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(event)
        self._ended |= isinstance(event, Closed)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class EventSender:
    """Passes events to all listeners. A listener that is garbage is forgotten."""

    def __init__(self) -> None:
        # weak, so that an abandoned listener queues nothing
        import weakref

        self._listeners: weakref.WeakSet[ConnectionEvents] = weakref.WeakSet()

    def listen(self, loop: asyncio.AbstractEventLoop, ended: bool) -> ConnectionEvents:
        """Returns a new listener."""
        listener = ConnectionEvents(loop, self, ended)
        if not ended:
            self._listeners.add(listener)
        return listener

    def forget(self, listener: ConnectionEvents) -> None:
        """Removes a listener."""
        self._listeners.discard(listener)

    def emit(self, event: ConnectionEvent) -> None:
        """Passes an event to all listeners."""
        for listener in list(self._listeners):
            listener.push(event)
