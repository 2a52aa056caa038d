"""The queue of received frames between a connection and one consumer. Owns its limit, the choice of frames to
drop, and the count of dropped frames; does not know the source of frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from elbus_client.errors import WrongThreadError
from elbus_client.frame import Frame
from elbus_client.settings import Overflow

#: What a queued frame counts besides its payload, in bytes: the object, its payload object, its place.
FRAME_OVERHEAD = 160
#: Number of frames after which a consumer lets other tasks run.
FRAMES_WITHOUT_PAUSE = 1024
#: Factor by which a queue can exceed its limit while an operation waits for its outcome, which arrives behind
#: the frames.
OVERCOMMIT = 4


class Reader(Protocol):
    """The source of frames, which can be paused."""

    def over_limit(self, queue: FrameQueue) -> None:
        """A queue is over its limit."""
        ...

    def below_limit(self, queue: FrameQueue) -> None:
        """A queue that was over its limit has room."""
        ...


class FrameQueue:
    """A queue of frames; any number of tasks can wait for the next one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: int, overflow: Overflow, reader: Reader
    ) -> None:
        self.loop = loop
        self.limit = limit
        self.overflow = overflow
        self.reader = reader
        #: Frames of the current read, until ``commit``.
        self.incoming: list[Frame] = []
        #: Bytes that are queued, without those that the consumer has begun to take.
        self.bytes = 0
        #: Frames dropped so far, here or by the broker.
        self.missed = 0
        #: Frames for which there was no consumer.
        self.unclaimed = 0
        #: The consumer has taken nothing for too long: frames over the limit are dropped until it continues.
        self.stalled = False
        #: A consumer exists. Without one the reader is never paused.
        self.claimed = True
        #: No frame will follow.
        self.ended = False
        #: The consumer is gone.
        self.discarded = False
        #: The queue is over its limit and pauses the reader.
        self.is_over = False
        #: Frames dropped after the last queued one; the next one will report them.
        self._unreported = 0
        #: What the broker has dropped before a frame of the current read: its index, and how many.
        self._gaps: list[tuple[int, int]] = []
        self._chunks: deque[tuple[list[Frame], int]] = deque()
        self._ready: deque[Frame] = deque()
        self._taken = 0
        self._without_pause = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    # the reader's side

    def add_missed(self, count: int) -> None:
        """Counts publications that the broker has dropped; the next frame will report them."""
        self.missed += count
        if self.incoming:
            self._gaps.append((len(self.incoming), count))
        else:
            self._unreported += count

    def commit(self) -> None:
        """Queues the frames of a read."""
        frames, self.incoming = self.incoming, []
        gaps, self._gaps = self._gaps, []
        if not frames:
            return
        if self.discarded or self.ended:
            self.unclaimed += len(frames)
            return
        behind = 0
        for index, count in gaps:
            if index < len(frames):
                frames[index] = frames[index].after_gap(count)
            else:
                behind += count
        if self._unreported:
            frames[0] = frames[0].after_gap(self._unreported)
            self._unreported = 0
        if self.overflow is Overflow.DROP_OLDEST:
            self._push_dropping_oldest(frames)
        elif self.overflow is Overflow.DROP_NEWEST or self.stalled or not self.claimed:
            self._push_dropping_newest(frames)
        else:
            cost = sum([len(frame.payload) for frame in frames]) + FRAME_OVERHEAD * len(frames)
            self._chunks.append((frames, cost))
            self.bytes += cost
            if self.bytes > self.limit:
                self.reader.over_limit(self)
        self._unreported += behind
        if self._waiters:
            self._wake_next()

    def _push_dropping_newest(self, frames: list[Frame]) -> None:
        for frame in frames:
            cost = len(frame.payload) + FRAME_OVERHEAD
            if self._chunks and self.bytes + cost > self.limit:
                self._unreported += 1 + frame.missed
                self.missed += 1
                continue
            if self._unreported:
                frame = frame.after_gap(self._unreported)
                self._unreported = 0
            self._chunks.append(([frame], cost))
            self.bytes += cost

    def _push_dropping_oldest(self, frames: list[Frame]) -> None:
        for frame in frames:
            cost = len(frame.payload) + FRAME_OVERHEAD
            dropped = 0
            while self._chunks and self.bytes + cost > self.limit:
                (oldest,), freed = self._chunks.popleft()
                self.bytes -= freed
                self.missed += 1
                dropped += 1 + oldest.missed
            if dropped:
                if self._chunks:
                    (head,), head_cost = self._chunks[0]
                    self._chunks[0] = ([head.after_gap(dropped)], head_cost)
                else:
                    frame = frame.after_gap(dropped)
            self._chunks.append(([frame], cost))
            self.bytes += cost

    def end(self) -> None:
        """Ends the queue: the consumer gets what is queued, then no more."""
        self.ended = True
        self._wake_all()

    def progress(self) -> tuple[int, int]:
        """Returns a value that changes whenever the consumer takes something."""
        return self._taken, len(self._ready)

    # the consumer's side

    def discard(self) -> None:
        """Drops what is queued and what arrives."""
        self.discarded = True
        self.ended = True
        self.bytes = 0
        self._chunks.clear()
        self._ready.clear()
        if self.is_over:
            self.reader.below_limit(self)
        self._wake_all()

    def _take(self) -> bool:
        if not self._chunks:
            return False
        frames, cost = self._chunks.popleft()
        self._ready.extend(frames)
        self.bytes -= cost
        self._taken += 1
        self._without_pause += len(frames)
        self.stalled = False
        if self.is_over and self.bytes <= self.limit * OVERCOMMIT:
            self.reader.below_limit(self)
        return True

    def try_next(self) -> Frame | None:
        """Returns the next frame if one is queued."""
        if self._ready or self._take():
            return self._ready.popleft()
        return None

    def take_all(self) -> list[Frame]:
        """Returns a chunk of queued frames, all of one read; none if nothing is queued."""
        if self._ready or self._take():
            frames = list(self._ready)
            self._ready.clear()
            return frames
        return []

    async def wait(self) -> bool:
        """Waits until a frame is queued. Returns ``False`` at the end."""
        if self._without_pause >= FRAMES_WITHOUT_PAUSE:
            self._without_pause = 0
            await asyncio.sleep(0)
        while not self._ready and not self._take():
            if self.ended:
                return False
            self._without_pause = 0
            if asyncio.get_running_loop() is not self.loop:
                raise WrongThreadError(
                    "the client belongs to the event loop that it was connected in: receive in that one"
                )
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready or self._chunks:
                    self._wake_next()
                raise
        if self._waiters and (len(self._ready) > 1 or self._chunks):
            self._wake_next()
        return True

    async def next(self) -> Frame | None:
        """Returns the next frame; ``None`` at the end. Cancellation loses no frame."""
        if not self._ready:
            await self.wait()
            if not self._ready:
                return None
        return self._ready.popleft()

    async def __anext__(self) -> Frame:
        ready = self._ready
        if ready:
            return ready.popleft()
        frame = await self.next()
        if frame is None:
            raise StopAsyncIteration
        return frame

    def _wake_next(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _wake_all(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
