"""The state that all handles of a client share, and its operations up to the acknowledgement. Owns operation
ids and the queue of a client's frames; connecting is in ``supervisor``, topic operations are in
``topic_operations``.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from elbus_client.address import Address
from elbus_client.connection.send_queue import GATHERED_BYTES, GATHERED_FRAMES, SendQueue
from elbus_client.connection.subscription_state import SubscriptionState
from elbus_client.errors import (
    ArgumentError,
    ClosedError,
    DisconnectedError,
    Error,
    FrameTooLongError,
    QueueFullError,
    UnsendableError,
    WrongThreadError,
    from_code,
)
from elbus_client.events import Closed, Connected, ConnectionEvent, Disconnected, EventSender
from elbus_client.receive.calls import PendingCalls
from elbus_client.receive.deadlines import Deadlines
from elbus_client.receive.demux import Demux
from elbus_client.receive.flow import FlowControl
from elbus_client.receive.frame_queue import FrameQueue
from elbus_client.settings import Overflow, Settings
from elbus_client.wire.constants import (
    BROADCAST,
    MESSAGE,
    OPERATIONS,
    PUBLISH,
    PUBLISH_FOR,
    SECONDARY_SEPARATOR,
    WANTS_ACK,
)
from elbus_client.wire.deliveries import DeliveryParser
from elbus_client.wire.requests import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    encode_hello,
    encode_payload,
    encode_text,
    flags_of,
    pack_header,
)

if TYPE_CHECKING:
    from elbus_client.connection.protocol import Connection

LOG = logging.getLogger("elbus_client")

#: Limits of the cache of encoded targets and topics.
CACHED_HEADS = 4096
CACHED_HEAD_CHARS = 256

#: Flags by QoS.
MESSAGE_FLAGS = flags_of(MESSAGE)
BROADCAST_FLAGS = flags_of(BROADCAST)
PUBLISH_FLAGS = flags_of(PUBLISH)
PUBLISH_FOR_FLAGS = flags_of(PUBLISH_FOR)
_FIELDS = {MESSAGE: "target", BROADCAST: "mask", PUBLISH: "topic", PUBLISH_FOR: "topic"}

#: All clients of this process, so that a fork can be noticed.
_clients: weakref.WeakSet[Core] = weakref.WeakSet()


class Core:
    """The state of one client."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        name: str,
        settings: Settings,
        secondaries: list[int],
    ) -> None:
        self.loop = loop
        self.address = address
        self.address_text = str(address)
        self.name = name
        self.hello = encode_hello(name)
        self.settings = settings
        #: The number of secondary clients of the same primary so far.
        self.secondaries = secondaries
        self.events = EventSender()
        self.subscriptions = SubscriptionState()
        self.send_queue = SendQueue(loop, int(settings.queue_bytes))
        #: A frame that is no longer needs no check of its length.
        self.short_frame = min(0xFFFF, int(settings.max_frame_bytes))
        self.acks = Deadlines(loop, settings.timeout)
        self.calls = PendingCalls(loop, settings.timeout)
        self.flow = FlowControl(loop, name, settings.hold_limit, self._has_operations)
        frames = FrameQueue(loop, int(settings.queue_bytes), settings.overflow, self.flow)
        frames.claimed = False
        self.demux = Demux(frames, self.calls, self.subscriptions)
        self.connection: Connection | None = None
        self.is_connected = False
        self.closing = False
        #: Why the client has ended.
        self.ended: Error | None = None
        #: Ends with the client.
        self.closed: asyncio.Future[None] = loop.create_future()
        self.frames_received = 0
        self.reconnects: int = 0
        #: What the broker of this connection knows; ``None`` until it is asked.
        self.features: asyncio.Task[frozenset[str]] | None = None
        #: The subscription to reports of what the broker drops, for the client's own use.
        self.reports: asyncio.Task[None] | None = None
        #: Calls and notifications before ``serve``, with the setting ``queue_calls``.
        self.queued_calls: FrameQueue | None = None
        if settings.queue_calls:
            self.queued_calls = self.new_queue(Overflow.BLOCK)
            self.demux.start_serving(self.queued_calls)
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._last_op = 0
        self._heads: dict[str, bytes] = {}
        self._connected_waiters: list[asyncio.Future[None]] = []
        _clients.add(self)

    def new_parser(self) -> DeliveryParser[FrameQueue]:
        """Returns the parser of a new connection."""
        return DeliveryParser(int(self.settings.max_frame_bytes), self.demux, self._on_ack)

    def new_queue(self, overflow: Overflow | None = None) -> FrameQueue:
        """Returns a queue with the client's limits."""
        settings = self.settings
        return FrameQueue(self.loop, int(settings.queue_bytes), overflow or settings.overflow, self.flow)

    def next_secondary_name(self) -> str:
        """Returns the name of the next secondary client."""
        primary = self.name.partition(SECONDARY_SEPARATOR)[0]
        number = self.secondaries[0]
        self.secondaries[0] += 1
        return f"{primary}{SECONDARY_SEPARATOR}{number}"

    # sending

    def send(
        self,
        flags: dict[int, int],
        qos: int,
        target: str,
        payload: bytes | bytearray | memoryview | str,
        receiver: bytes = b"",
    ) -> Awaitable[object] | None:
        """Queues a frame. Returns what has still to be awaited: space, the acknowledgement, other tasks.

        ``receiver`` precedes the payload in the body.
        """
        queue = self.send_queue
        try:
            flag = flags[qos]
            head = self._heads[target]
        except (KeyError, TypeError):
            flag, head = self._encode(flags, qos, target)
        if type(payload) is not bytes:
            payload = encode_payload(payload)
        size = len(head) + len(payload)
        if receiver:
            payload = receiver + payload
            size += len(receiver)
        if (
            flag & WANTS_ACK
            or queue.transport is None
            or queue.queued + size > queue.limit
            or size > self.short_frame
        ):
            return self._send_other(flag, target, head, payload)
        queue.parts += (pack_header(0, flag, size), head, payload)
        queue.queued += size + HEADER_BYTES
        queue.gathered += 1
        if not queue.scheduled:
            self.check_loop()
            queue.schedule()
        elif queue.gathered >= GATHERED_FRAMES or queue.queued >= GATHERED_BYTES:
            return self._let_others_run()
        return None

    def _encode(self, flags: dict[int, int], qos: object, target: object) -> tuple[int, bytes]:
        """Checks the arguments that are not known yet."""
        try:
            flag = flags[qos]  # type: ignore[index]
        except (KeyError, TypeError):
            raise ArgumentError(f"qos must be a Qos, not {qos!r}") from None
        head = encode_text(target, _FIELDS[flag & 0x3F])
        if len(head) <= CACHED_HEAD_CHARS:
            if len(self._heads) >= CACHED_HEADS:
                self._heads.clear()
            self._heads[str(target)] = head
        return flag, head

    def _send_other(self, flag: int, target: str, head: bytes, payload: bytes) -> Awaitable[object] | None:
        """Sends with acknowledgement, a large frame, or while there is no space or connection."""
        self.check_size(len(head), len(payload))
        operation = OPERATIONS[flag & 0x3F]
        if flag & WANTS_ACK:
            if not self.send_queue.is_full(len(head) + len(payload) + HEADER_BYTES) or flag & 0x80:
                return self._put_acknowledged(flag, operation, target, (head, payload))
            return self._wait_and_send(flag, operation, target, (head, payload))
        if self.send_queue.is_full(len(head) + len(payload) + HEADER_BYTES) and not flag & 0x80:
            return self._wait_and_send(flag, operation, target, (head, payload))
        self.put(0, flag, head, payload)
        return self._let_others_run() if self.send_queue.queued >= GATHERED_BYTES else None

    def check_size(self, head: int, payload: int) -> None:
        """Raises if a frame is too long."""
        limit = int(self.settings.max_frame_bytes)
        if payload > limit:
            raise FrameTooLongError(payload, limit)
        if head + payload > MAX_BODY_BYTES:
            raise UnsendableError(f"body of {head + payload} bytes exceeds {MAX_BODY_BYTES} (u32)")

    def check_loop(self) -> None:
        """Raises if the client is used in another event loop than its own."""
        # the only function that does not raise without a loop
        if asyncio._get_running_loop() is not self.loop:  # pyright: ignore[reportPrivateUsage]
            raise WrongThreadError(
                "the client belongs to the event loop that it was connected in: connect it in this one, or "
                "use elbus_client.blocking, whose clients can be used in any thread"
            )

    def put(self, op_id: int, flag: int, *parts: bytes) -> None:
        """Queues a frame, beyond the limit as well; raises if there is no connection."""
        queue = self.send_queue
        if queue.transport is None:
            raise self.unavailable()
        self.check_loop()
        size = sum(map(len, parts))
        if flag & 0x80 and queue.queued + size > 2 * queue.limit:
            raise QueueFullError(queue.queued, 2 * queue.limit)
        queue.put(pack_header(op_id, flag, size), *parts)

    def _put_acknowledged(
        self, flag: int, operation: str, target: str, parts: tuple[bytes, ...]
    ) -> asyncio.Future[object]:
        op_id = self.next_op()
        self.put(op_id, flag, *parts)
        future = self.acks.add(op_id, operation, target)
        if self.flow.paused:
            self.flow.update()
        return future

    async def _wait_and_send(self, flag: int, operation: str, target: str, parts: tuple[bytes, ...]) -> None:
        await self.wait_for_space(sum(map(len, parts)) + HEADER_BYTES)
        if flag & WANTS_ACK:
            await self._put_acknowledged(flag, operation, target, parts)
        else:
            self.put(0, flag, *parts)

    async def wait_for_space(self, size: int) -> None:
        """Waits until a frame of this size fits the queue; raises if there is no connection."""
        queue = self.send_queue
        while True:
            if queue.transport is None:
                raise self.unavailable()
            if not queue.is_full(size):
                return
            await queue.wait_for_space(size, self.settings.timeout, self.address_text)

    async def _let_others_run(self) -> None:
        self.send_queue.flush()
        await asyncio.sleep(0)

    def send_acknowledged(
        self, flag: int, parts: tuple[bytes, ...], operation: str, target: str
    ) -> asyncio.Future[object]:
        """Queues a frame with acknowledgement, beyond the limit as well. The future ends with the outcome."""
        return self._put_acknowledged(flag | WANTS_ACK, operation, target, parts)

    def send_with_callback(self, flag: int, parts: tuple[bytes, ...], callback: Callable[[int], None]) -> int:
        """Queues a frame. The callback gets the code of its acknowledgement, if one arrives. Returns the op
        id.
        """
        op_id = self.next_op()
        self.put(op_id, flag | WANTS_ACK, *parts)
        self._callbacks[op_id] = callback
        return op_id

    def forget_callback(self, op_id: int) -> None:
        """The outcome of an operation is known without its acknowledgement."""
        self._callbacks.pop(op_id, None)

    def next_op(self) -> int:
        """Returns an operation id that is not in use."""
        while True:
            self._last_op = op_id = (self._last_op + 1) & 0xFFFFFFFF
            if op_id not in self.acks.entries and op_id not in self._callbacks:
                return op_id

    def ping(self) -> None:
        """Queues a ping."""
        if self.send_queue.transport is None:
            raise self.unavailable()
        self.send_queue.put_ping()

    def unavailable(self) -> Error:
        """Returns why nothing can be sent."""
        if self.closing:
            return ClosedError()
        return (self.ended or self.send_queue.error).fresh()

    def _has_operations(self) -> bool:
        return bool(self.acks.entries) or len(self.calls) > 0

    def _on_ack(self, op_id: int, code: int) -> None:
        entry = self.acks.pop(op_id)
        if entry is not None:
            if not entry.future.done():
                if code == 0x01:
                    entry.future.set_result(None)
                else:
                    entry.future.set_exception(from_code(code, entry.operation, entry.target))
            return
        callback = self._callbacks.pop(op_id, None)
        if callback is not None:
            callback(code)

    # the connection, called by the protocol and the supervisor

    def on_registered(self, connection: Connection) -> None:
        """Uses a new connection, after it has restored subscriptions and exclusions."""
        from elbus_client.connection.topic_operations import restore

        transport = connection.transport
        assert transport is not None
        self.connection = connection
        self.features = None
        self.send_queue.attach(transport)
        self.flow.attach(transport)
        restore(self, self.subscriptions.operations())
        self.is_connected = True
        self.emit(Connected())
        self._release_connected(None)

    def on_read(self) -> None:
        """The frames of a read have been parsed."""
        self.frames_received += self.demux.commit()

    def on_lost(self, connection: Connection, error: Error) -> None:
        """The connection has ended; replaced by the supervisor."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.send_queue.pause_writing()

    def resume_writing(self) -> None:
        self.send_queue.resume_writing()

    def detach(self, reason: Error) -> None:
        """Stops using the connection; operations in flight fail."""
        self.connection = None
        self.is_connected = False
        self.flow.detach()
        self.send_queue.detach(reason)
        self._callbacks.clear()
        self.acks.fail_all(reason)
        self.calls.fail_all(reason)

    def end(self, reason: Error) -> None:
        """Ends the client."""
        if self.ended is not None:
            return
        self.ended = reason
        self.detach(reason)
        self.demux.end()
        self.emit(Closed(reason_of(reason)))
        self._release_connected(reason)
        if not self.closed.done():
            self.closed.set_result(None)

    def emit(self, event: ConnectionEvent) -> None:
        """Reports a change of the connection."""
        if isinstance(event, Disconnected):
            LOG.debug("connection lost client=%r reason=%s", self.name, event.reason)
        self.events.emit(event)

    async def wait_connected(self) -> None:
        """Waits for a connection; raises the reason why the client has ended."""
        if self.is_connected:
            return
        if self.ended is not None:
            raise self.ended.fresh()
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._connected_waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._connected_waiters:
                self._connected_waiters.remove(waiter)

    def _release_connected(self, error: Error | None) -> None:
        waiters, self._connected_waiters = self._connected_waiters, []
        for waiter in waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error.fresh())

    def abandon_in_fork(self) -> None:
        """Ends the copy of a client in a forked process, without a byte to the broker."""
        self.closing = False
        self.is_connected = False
        self.ended = WrongThreadError(
            "the client belongs to the process before the fork: connect a new one here"
        )
        self.send_queue.transport = None


def reason_of(error: Error) -> str:
    """Returns the text of an error without the prefix that all lost connections have."""
    return error.reason if isinstance(error, DisconnectedError) else str(error)


def _abandon_all_in_fork() -> None:
    for core in list(_clients):
        core.abandon_in_fork()


if hasattr(__import__("os"), "register_at_fork"):
    import os

    os.register_at_fork(after_in_child=_abandon_all_in_fork)
