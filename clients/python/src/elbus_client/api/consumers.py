"""Consumers of received frames. Own their lifetime; routing and queueing are in ``receive``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from elbus_client.connection.subscription_state import FilterUser
from elbus_client.connection.topic_operations import forget_subscription, unsubscribe
from elbus_client.errors import Error
from elbus_client.frame import Frame
from elbus_client.receive.frame_queue import FrameQueue

if TYPE_CHECKING:
    from elbus_client.api.client import Client


class Frames:
    """Messages, broadcasts, and publications without a consumer of their own; ``Client.frames``.

    An async iterator. It ends when the client has ended and the queue is empty. Several tasks can iterate;
    each frame goes to one of them. Until ``Client.frames`` is used for the first time, at most
    ``queue_bytes`` are kept.
    """

    __slots__ = ("__weakref__", "_queue")

    def __init__(self, queue: FrameQueue) -> None:
        self._queue = queue

    def __aiter__(self) -> Frames:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Frame]:
        return self._queue.__anext__()

    def next(self) -> Coroutine[Any, Any, Frame | None]:
        """Returns the next frame; ``None`` at the end. Cancellation loses no frame."""
        return self._queue.next()

    def try_next(self) -> Frame | None:
        """Returns the next frame if one is queued. Does not wait."""
        return self._queue.try_next()

    async def batch(self) -> list[Frame]:
        """Returns queued frames, at least one; none at the end. Cheaper than one frame at a time."""
        await self._queue.wait()
        return self._queue.take_all()

    def take_all(self) -> list[Frame]:
        """Returns queued frames, none if nothing is queued. Does not wait."""
        return self._queue.take_all()

    async def wait(self) -> bool:
        """Waits until a frame is queued. Returns ``False`` at the end."""
        return await self._queue.wait()

    @property
    def missed(self) -> int:
        """How many frames have been dropped so far: by the client because they were not taken in time, or by
        the broker because of the options latest, every or lossy.
        """
        return self._queue.missed


class Subscription(Frames):
    """Publications that match some filters, in a queue of their own; from ``Client.subscribe``.

    An async iterator and an async context manager, which unsubscribes. A publication that matches several
    subscriptions is delivered to each of them, and not to ``Client.frames``.
    """

    __slots__ = ("_client", "_id", "filters")

    def __init__(self, client: Client, queue: FrameQueue, id: int, filters: list[str]) -> None:
        super().__init__(queue)
        self._client = client
        self._id: int | None = id
        #: The filters with their options.
        self.filters = tuple(filters)

    def __aiter__(self) -> Subscription:
        return self

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # what has ended the block is the reason to report, not that the connection has ended as well
        with contextlib.suppress(Error):
            await self.unsubscribe()

    async def unsubscribe(self) -> None:
        """Unsubscribes and waits for the broker's acknowledgement. What is queued can still be taken.

        Raises as ``Client.remove_filters``.
        """
        if self._id is None:
            return
        id, self._id = self._id, None
        core = self._client.core
        filters = core.demux.remove_subscription(id)
        self._queue.end()
        await unsubscribe(core, filters, FilterUser.SUBSCRIPTION)

    def __del__(self) -> None:
        id = getattr(self, "_id", None)
        if id is None:
            return
        core, queue = self._client.core, self._queue

        def end() -> None:
            queue.discard()
            state = core.subscriptions
            filters = core.demux.remove_subscription(id)
            with contextlib.suppress(Error):
                user = FilterUser.SUBSCRIPTION
                forget_subscription(core, [filter for filter in filters if state.unsubscribe(filter, user)])

        # the garbage collector can run in any thread
        with contextlib.suppress(RuntimeError):
            if core.ended is None and not core.loop.is_closed():
                core.loop.call_soon_threadsafe(end)


def running_loop() -> asyncio.AbstractEventLoop:
    """Returns the running event loop; raises an error that says what to do."""
    from elbus_client.errors import WrongThreadError

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongThreadError(
            "no event loop is running: call this within a coroutine, or use elbus_client.blocking"
        ) from None
