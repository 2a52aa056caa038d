"""Reports about publications that the broker has dropped: which queues count them, and who receives them.
Publications that a group shares: which queues get them.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import cast

import pytest

from elbus_client.connection.subscription_state import FilterUser, SubscriptionState
from elbus_client.frame import Frame, FrameKind
from elbus_client.receive.calls import PendingCalls
from elbus_client.receive.demux import Demux
from elbus_client.receive.frame_queue import FRAME_OVERHEAD, FrameQueue, Reader
from elbus_client.receive.gap_report import MAX_REPORT_BYTES
from elbus_client.settings import Overflow
from elbus_client.wire.constants import MISSED_TOPIC, SUBSCRIBE
from elbus_client.wire.deliveries import DeliveryParser
from elbus_client.wire.subscription import known_text


class Client:
    """The receiving parts of a client, without a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.state = SubscriptionState()
        self.frames = self.queue()
        self.demux = Demux(self.frames, PendingCalls(loop, 1), self.state)
        self.parser: DeliveryParser[FrameQueue] = DeliveryParser(1 << 20, self.demux, lambda id, code: None)

    def queue(self, limit: int = 1 << 20, overflow: Overflow = Overflow.BLOCK) -> FrameQueue:
        return FrameQueue(self.loop, limit, overflow, cast("Reader", None))

    def subscribe(self, *filters: str) -> FrameQueue:
        queue = self.queue()
        self.demux.add_subscription(list(filters), queue)
        return queue

    def read(self, *received: bytes) -> int:
        """Receives these frames in one read. Returns how many they were."""
        data = b"".join(received)
        assert self.parser.parse(data) == len(data)
        return self.demux.commit()


@pytest.fixture
def client() -> Iterator[Client]:
    loop = asyncio.new_event_loop()
    yield Client(loop)
    loop.close()


def publication(topic: str, payload: bytes, sender: str = ".broker") -> bytes:
    body = sender.encode() + b"\0" + topic.encode() + b"\0" + payload
    return struct.pack("<BIB", 1, len(body), 0) + body


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\xda" + struct.pack(">H", len(raw)) + raw


def encoded(filter: str, count: bytes) -> bytes:
    return b"\x83" + text("filter") + text(filter) + text("topic") + text("t") + text("count") + count


def report(filter: str, count: int) -> bytes:
    return publication(MISSED_TOPIC, encoded(filter, b"\xcf" + struct.pack(">Q", count)))


def taken(queue: FrameQueue) -> list[tuple[bytes, int]]:
    return [(frame.payload, frame.missed) for frame in iter(queue.try_next, None)]


def test_a_report_counts_for_each_consumer_of_its_filter_and_nobody_receives_it(client: Client) -> None:
    client.demux.expect_reports()
    one, same = client.subscribe("x", "$latest/a/#/b"), client.subscribe("$latest/a/#")
    other = client.subscribe("$lossy/a/#", "a/#")
    client.state.subscribe("$latest/a/#", FilterUser.FRAMES)
    queues = (one, same, other, client.frames)
    assert client.read(report("$latest/a/#", 3)) == 1
    assert [queue.missed for queue in queues] == [3, 3, 0, 3]
    client.read(report("", 2))  # filters without options
    assert [queue.missed for queue in queues] == [5, 3, 2, 3]
    assert [taken(queue) for queue in queues] == [[], [], [], []]
    client.read(publication("a/1", b"1"))
    # one frame for several consumers, each with its own gap
    assert [taken(queue) for queue in queues] == [[(b"1", 5)], [(b"1", 3)], [(b"1", 2)], []]


def test_the_gap_is_where_the_report_is_among_the_frames_of_one_read(client: Client) -> None:
    client.demux.expect_reports()
    queue = client.subscribe("$lossy/a")
    gap = report("$lossy/a", 2)
    one, two, three = (publication("a", payload) for payload in (b"1", b"2", b"3"))
    assert client.read(gap, one, gap, gap, two, gap) == 6
    assert taken(queue) == [(b"1", 2), (b"2", 4)]
    client.read(three)
    assert (taken(queue), queue.missed) == ([(b"3", 2)], 8)


@pytest.mark.parametrize("long", [False, True])
def test_users_who_are_subscribed_to_reports_receive_them(client: Client, long: bool) -> None:
    def read() -> None:
        if long:
            client.parser.parse_one(memoryview(report("$latest/a", 3)))
            client.demux.commit()
        else:
            client.read(report("$latest/a", 3))

    read()
    assert len(taken(client.frames)) == 1, "an ordinary publication before the client uses reports"
    client.demux.expect_reports()
    client.state.subscribe(MISSED_TOPIC, FilterUser.GAPS)
    read()
    assert taken(client.frames) == []
    client.state.subscribe(MISSED_TOPIC, FilterUser.FRAMES)
    read()
    assert len(taken(client.frames)) == 1
    queue = client.subscribe(MISSED_TOPIC)
    read()
    assert (len(taken(queue)), taken(client.frames)) == (1, [])
    assert not client.state.unsubscribe(MISSED_TOPIC, FilterUser.FRAMES), "the client still uses it"


def test_what_is_not_a_report_counts_nothing(client: Client) -> None:
    client.demux.expect_reports()
    queue = client.subscribe("$latest/a")
    valid = encoded("$latest/a", b"\x03")
    long = b"\xc6" + struct.pack(">I", MAX_REPORT_BYTES) + bytes(MAX_REPORT_BYTES)
    hostile = [
        *(valid[:length] for length in range(len(valid))),
        *(
            encoded("$latest/a", count)
            for count in (b"\xff", b"\xd0\x80", b"\xa13", b"\xc0", b"\xc3", b"\x91\x03")
        ),
        *(
            encoded("$latest/a", count)
            for count in (b"\xcb" + bytes(8), b"\xcc", b"\xc1", b"\xdd\xff\xff\xff\xff")
        ),
        *(b"\x80", b"\xc0", b"\x03", b"\x91\x03", b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000),
        b"\x81" + text("count") + b"\x03",
        b"\x82" + text("filter") + b"\xa1\xff" + text("count") + b"\x03",
        b"\x82" + text("filter") + b"\x03" + text("count") + b"\x03",
        b"\x84" + valid[1:] + text("more") + b"\xc4" + bytes([0xFF]),
        b"\x84" + valid[1:] + text("more") + long,
    ]
    for payload in hostile:
        assert client.read(publication(MISSED_TOPIC, payload)) == 1
    client.read(publication(MISSED_TOPIC, valid, sender="b"))
    assert queue.missed == 0
    client.read(publication(MISSED_TOPIC, valid))
    assert queue.missed == 3


def test_gaps_survive_that_frames_are_dropped(client: Client) -> None:
    for overflow, expected in (
        # what was dropped is reported by the oldest that is left
        (Overflow.DROP_OLDEST, [(b"2", 5), (b"3", 5)]),
        (Overflow.DROP_NEWEST, [(b"0", 3), (b"1", 0)]),
    ):
        queue = client.queue(2 * (FRAME_OVERHEAD + 1), overflow)
        queue.add_missed(3)
        for number in range(4):
            queue.incoming.append(Frame(FrameKind.PUBLISH, ".", b"%d" % number))
            if number == 2:
                queue.add_missed(5)
            queue.commit()
        assert queue.missed == 3 + 5 + 2
        assert taken(queue) == expected
        if overflow is Overflow.DROP_NEWEST:
            queue.incoming.append(Frame(FrameKind.PUBLISH, ".", b"4"))
            queue.commit()
            assert taken(queue) == [(b"4", 7)]


def test_reports_are_restored_in_a_frame_of_their_own() -> None:
    state = SubscriptionState()
    state.subscribe("$latest/a", FilterUser.SUBSCRIPTION)
    state.subscribe(MISSED_TOPIC, FilterUser.FRAMES)
    assert state.operations() == [(SUBSCRIBE, ["$latest/a", MISSED_TOPIC])]
    state.subscribe(MISSED_TOPIC, FilterUser.GAPS)
    assert state.operations() == [(SUBSCRIBE, [MISSED_TOPIC]), (SUBSCRIBE, ["$latest/a"])]


def test_the_broker_leaves_out_what_follows_a_number_sign() -> None:
    for filter, known in (
        ("$lossy/a/#/b", "$lossy/a/#"),
        ("#/#/b", "#"),
        ("#", "#"),
        ("a#/b", "a#/b"),
        ("a/b", "a/b"),
        ("a/", "a/"),
        ("", ""),
    ):
        assert known_text(filter) == known


def test_what_the_client_gets_by_a_filter_without_a_group_is_not_for_its_group(client: Client) -> None:
    shared, keyed = client.subscribe("$share/g/a/#"), client.subscribe("$key/g/1/$latest/a/+")
    mixed = client.subscribe("$share/g/a/#", "a/1")

    def publish(topic: str) -> list[int]:
        client.read(publication(topic, b"1"))
        return [len(taken(queue)) for queue in (shared, keyed, mixed, client.frames)]

    client.state.subscribe("$lossy/a/#", FilterUser.FRAMES)
    client.state.subscribe("$share/g/a/#", FilterUser.SUBSCRIPTION)
    client.state.acknowledge(["$share/g/a/#", "unknown"])
    assert publish("a/1") == [1, 1, 1, 0], "the broker has not acknowledged the filter"
    client.state.acknowledge(["$lossy/a/#"])
    assert publish("a/1") == [1, 1, 1, 0], "the consumers of a topic are cached"
    client.demux.filters_changed()
    assert publish("a/1") == [0, 0, 1, 0]
    assert publish("a/2") == [0, 0, 0, 1]
    client.state.unsubscribe("$lossy/a/#", FilterUser.FRAMES)
    client.state.subscribe("$lossy/a/#", FilterUser.FRAMES)
    client.demux.filters_changed()
    assert publish("a/2") == [1, 1, 1, 0]
