"""The subscriptions and exclusions that the user wants, which outlive a connection: the broker forgets them
when it ends. Owns the sets; never sends.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from elbus_client.wire import topics
from elbus_client.wire.constants import EXCLUDE, MISSED_TOPIC, SUBSCRIBE, UNSUBSCRIBE, WARNINGS_TOPIC
from elbus_client.wire.subscription import is_shared, known_text, topic_filter

#: Limit of filters in one frame when they are restored.
MAX_FRAME_FILTERS = 1000
#: Limit of their bytes, unless a single filter is longer; a broker refuses frames of more than 4 MiB.
MAX_FRAME_BYTES = 1 << 20


class FilterUser(enum.Enum):
    """Which part of a client uses a filter."""

    #: ``Client.add_filters``.
    FRAMES = enum.auto()
    #: A subscription with its own queue.
    SUBSCRIPTION = enum.auto()
    #: The client itself, for reports of what its filters with options have missed.
    GAPS = enum.auto()


class Uses:
    """The users of a filter."""

    __slots__ = ("acknowledged", "frames", "gaps", "subscriptions")

    def __init__(self) -> None:
        self.acknowledged = False
        self.frames = False
        self.gaps = False
        self.subscriptions = 0


class SubscriptionState:
    """The filters that are in use."""

    def __init__(self) -> None:
        self._subscribed: dict[str, Uses] = {}
        self._excluded: dict[str, None] = {}
        self._warnings_declined = False

    def subscribe(self, filter: str, user: FilterUser) -> bool:
        """Adds a use of a filter. Returns whether :meth:`unsubscribe` reverts it."""
        if filter == WARNINGS_TOPIC:
            self._warnings_declined = False
        uses = self._subscribed.setdefault(filter, Uses())
        if user is FilterUser.FRAMES:
            new = not uses.frames
            uses.frames = True
            return new
        if user is FilterUser.GAPS:
            new = not uses.gaps
            uses.gaps = True
            return new
        uses.subscriptions += 1
        return True

    def unsubscribe(self, filter: str, user: FilterUser) -> bool:
        """Removes a use of a filter. Returns whether it was the last one."""
        uses = self._subscribed.get(filter)
        if uses is not None:
            if user is FilterUser.FRAMES:
                uses.frames = False
            elif user is FilterUser.GAPS:
                uses.gaps = False
            else:
                uses.subscriptions = max(uses.subscriptions - 1, 0)
            if uses.frames or uses.gaps or uses.subscriptions:
                return False
            del self._subscribed[filter]
        if filter == WARNINGS_TOPIC:
            self._warnings_declined = True
        return True

    def exclude(self, filter: str) -> bool:
        """Adds an exclusion. Returns whether it is new."""
        new = filter not in self._excluded
        self._excluded[filter] = None
        return new

    def unexclude(self, filter: str) -> None:
        """Removes an exclusion."""
        self._excluded.pop(filter, None)

    def is_subscribed(self, filter: str) -> bool:
        """Returns whether the filter is in use."""
        return filter in self._subscribed

    def acknowledge(self, filters: list[str]) -> None:
        """Notes that the broker has acknowledged these filters."""
        for filter in filters:
            uses = self._subscribed.get(filter)
            if uses is not None:
                uses.acknowledged = True

    def is_alone(self, topic: str) -> bool:
        """Returns whether the broker delivers publications to a topic because of a filter that no group
        shares. Takes as long as there are filters.
        """
        return any(
            uses.acknowledged and not is_shared(filter) and topics.matches(topic_filter(filter), topic)
            for filter, uses in self._subscribed.items()
        )

    @property
    def has_gaps(self) -> bool:
        """Whether the client is subscribed to reports for its own use."""
        uses = self._subscribed.get(MISSED_TOPIC)
        return uses is not None and uses.gaps

    def frames_have(self, topic: str) -> bool:
        """Returns whether the frames of the client are subscribed to this topic."""
        return any(
            uses.frames and topics.matches(topic_filter(filter), topic)
            for filter, uses in self._subscribed.items()
        )

    def frames_know(self, known: str) -> bool:
        """Returns whether the frames of the client are subscribed to the filter that the broker knows as this
        text; an empty one stands for all without options.
        """
        return any(
            uses.frames and (known_text(filter) == known or (not known and topic_filter(filter) == filter))
            for filter, uses in self._subscribed.items()
        )

    def includes(self, op: int, filter: str) -> bool:
        """Returns whether restoring the state includes this operation on the filter."""
        if op == EXCLUDE:
            return filter in self._excluded
        if op == UNSUBSCRIBE:
            return self._warnings_declined and filter == WARNINGS_TOPIC
        return filter in self._subscribed

    def operations(self) -> list[tuple[int, list[str]]]:
        """Returns the operations that restore this state with a new connection, in order, each in one
        frame. Reports have a frame of their own: other filters must not depend on whether the broker allows
        them.
        """
        gaps = [MISSED_TOPIC] if self.has_gaps else []
        declined = [WARNINGS_TOPIC] if self._warnings_declined else []
        wanted = (
            (EXCLUDE, list(self._excluded)),
            (SUBSCRIBE, gaps),
            (SUBSCRIBE, [filter for filter in self._subscribed if filter not in gaps]),
            (UNSUBSCRIBE, declined),
        )
        return [(op, chunk) for op, filters in wanted for chunk in chunks(filters)]


def chunks(filters: list[str]) -> Iterator[list[str]]:
    """Splits filters into chunks that fit into one frame."""
    chunk: list[str] = []
    size = 0
    for filter in filters:
        length = len(filter.encode()) + 1
        if chunk and (len(chunk) >= MAX_FRAME_FILTERS or size + length > MAX_FRAME_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(filter)
        size += length
    if chunk:
        yield chunk
