"""Routes each received frame to its consumer: the caller of a reply, the server of calls, the subscriptions
whose filter matches, or the frames of the client. Owns these tables; never reads a socket.
"""

from __future__ import annotations

from typing import Protocol

from elbus_client.errors import AlreadyServingError
from elbus_client.frame import Frame
from elbus_client.receive.calls import PendingCalls
from elbus_client.receive.frame_queue import FrameQueue
from elbus_client.receive.gap_report import gap_report
from elbus_client.wire import rpc, topics
from elbus_client.wire.constants import MISSED_TOPIC
from elbus_client.wire.deliveries import decode_text
from elbus_client.wire.subscription import is_shared, known_text, topic_filter

#: Limit of topics whose consumers are cached.
CACHED_TOPICS = 4096
#: Longer topics are not cached, in bytes.
CACHED_TOPIC_BYTES = 1024


class ClientFilters(Protocol):
    """The filters of all consumers."""

    def frames_have(self, topic: str) -> bool:
        """Returns whether a filter of ``Client.frames`` matches this topic."""
        ...

    def frames_know(self, known: str) -> bool:
        """Returns whether the broker knows a filter of ``Client.frames`` as this."""
        ...

    def is_alone(self, topic: str) -> bool:
        """Returns whether publications to this topic arrive because of a filter that no group shares."""
        ...


class _Subscription:
    """A consumer and its filters: as they were given, and without their options."""

    __slots__ = ("alone", "filters", "plain", "queue", "shared")

    def __init__(self, filters: list[str], queue: FrameQueue) -> None:
        self.filters = filters
        self.plain = [topic_filter(filter) for filter in filters]
        self.shared = [topic_filter(filter) for filter in filters if is_shared(filter)]
        self.alone = [topic_filter(filter) for filter in filters if not is_shared(filter)]
        self.queue = queue


class Demux:
    """The tables of one client's consumers."""

    def __init__(self, frames: FrameQueue, calls: PendingCalls, filters: ClientFilters) -> None:
        self.frames = frames
        self.calls = calls
        self.topics: dict[bytes, tuple[str, tuple[FrameQueue, ...]]] = {}
        self.touched: list[FrameQueue] = []
        self.unclaimed = 0
        self._filters = filters
        #: Frames of the current read that are in no queue: replies, reports.
        self._consumed = 0
        self._subscriptions: dict[int, _Subscription] = {}
        self._next_id = 0
        self._calls_queue: FrameQueue | None = None
        #: The client is subscribed to reports for its own use.
        self._expects_reports = False
        self._ended = False

    def add_topic(self, topic: bytes) -> tuple[str, tuple[FrameQueue, ...]]:
        """Returns a topic's text and the consumers of its publications, and caches both."""
        text = decode_text(topic, "topic")
        if self._expects_reports and text == MISSED_TOPIC:
            entry: tuple[str, tuple[FrameQueue, ...]] = (text, ())
        else:
            entry = (text, self._matching(text) or (self.frames,))
        if len(topic) <= CACHED_TOPIC_BYTES:
            if len(self.topics) >= CACHED_TOPICS:
                self.topics.clear()
            self.topics[topic] = entry
        return entry

    def _matching(self, topic: str) -> tuple[FrameQueue, ...]:
        queues: list[FrameQueue] = []
        members: list[FrameQueue] = []
        for entry in self._subscriptions.values():
            if any(topics.matches(filter, topic) for filter in entry.alone):
                queues.append(entry.queue)
            elif any(topics.matches(filter, topic) for filter in entry.shared):
                members.append(entry.queue)
        # what the client gets by a filter without a group, another member gets because of the group
        if members and not self._filters.is_alone(topic):
            queues += members
        return tuple(queues)

    def on_report(self, frame: Frame) -> None:
        """Counts what the broker reports in the queues that have missed it. Only users who are subscribed to
        reports receive it.
        """
        report = gap_report(frame)
        if report is not None:
            filter, count = report
            for entry in self._subscriptions.values():
                # an empty one stands for all filters without options, by a policy of the broker
                if any(
                    known_text(text) == filter or (not filter and text == matched)
                    for text, matched in zip(entry.filters, entry.plain, strict=True)
                ):
                    entry.queue.add_missed(count)
            if self._filters.frames_know(filter):
                self.frames.add_missed(count)
        queues = self._matching(MISSED_TOPIC)
        if not queues and self._filters.frames_have(MISSED_TOPIC):
            queues = (self.frames,)
        for queue in queues:
            self._push(queue, frame)
        self._consumed += not queues

    def expect_reports(self) -> None:
        """Takes reports of the broker into account from now on."""
        self._expects_reports = True
        self.topics.clear()

    def filters_changed(self) -> None:
        """Has the cached consumers of topics determined again."""
        self.topics.clear()

    def commit(self) -> int:
        """Queues what a read has brought. Returns the number of frames."""
        count, self._consumed = self._consumed, 0
        for queue in self.touched:
            count += len(queue.incoming)
            queue.commit()
        self.touched.clear()
        return count

    def on_rpc(self, frame: Frame) -> None:
        """Routes a message whose payload begins like RPC."""
        payload = frame.payload
        kind = payload[0]
        if kind == rpc.REPLY:
            reply = rpc.decode_reply(payload)
            if reply is not None and self._complete(self.calls.complete(reply[0], frame.sender, reply[1])):
                return
        elif kind == rpc.ERROR:
            error = rpc.decode_error(payload)
            if error is not None and self._complete(
                self.calls.fail(error[0], frame.sender, error[1], error[2])
            ):
                return
        elif self._calls_queue is not None and (
            kind == rpc.NOTIFICATION or (kind == rpc.REQUEST and b"\0" in payload[5:])
        ):
            self._push(self._calls_queue, frame)
            return
        self._push(self.frames, frame)

    def _complete(self, known: bool | None) -> bool:
        # None: the caller has given up
        self._consumed += known is not False
        self.unclaimed += known is None
        return known is not False

    def _push(self, queue: FrameQueue, frame: Frame) -> None:
        if not queue.incoming:
            self.touched.append(queue)
        queue.incoming.append(frame)

    def add_subscription(self, filters: list[str], queue: FrameQueue) -> int:
        """Adds a consumer: publications that match are queued for it. Returns its id."""
        self._next_id += 1
        self._subscriptions[self._next_id] = _Subscription(filters, queue)
        self.topics.clear()
        if self._ended:
            queue.end()
        return self._next_id

    def remove_subscription(self, id: int) -> list[str]:
        """Removes a consumer and returns its filters."""
        entry = self._subscriptions.pop(id, None)
        self.topics.clear()
        return entry.filters if entry else []

    def start_serving(self, queue: FrameQueue) -> None:
        """Delivers calls and notifications to the queue."""
        if self._calls_queue is not None:
            raise AlreadyServingError
        self._calls_queue = queue
        if self._ended:
            queue.end()

    def stop_serving(self) -> None:
        """Ends the queue of calls; further calls and notifications are ordinary frames."""
        queue, self._calls_queue = self._calls_queue, None
        if queue is not None:
            queue.end()

    def end(self) -> None:
        """Ends all queues."""
        self._ended = True
        for entry in self._subscriptions.values():
            entry.queue.end()
        if self._calls_queue is not None:
            self._calls_queue.end()
        self.frames.end()
