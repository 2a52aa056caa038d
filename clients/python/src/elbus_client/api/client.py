"""The client: its operations and the state of its connection. Owns the meaning of an operation; waiting,
writing and reading are in ``connection``.
"""

from __future__ import annotations

import os
import ssl
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from elbus_client.address import Address
from elbus_client.api.consumers import Frames, Subscription, running_loop
from elbus_client.api.opening import IterableOpening, Opening
from elbus_client.api.required_features import require_features
from elbus_client.connection import topic_operations
from elbus_client.connection.core import (
    BROADCAST_FLAGS,
    MESSAGE_FLAGS,
    PUBLISH_FLAGS,
    PUBLISH_FOR_FLAGS,
)
from elbus_client.connection.subscription_state import FilterUser
from elbus_client.connection.supervisor import SupervisedCore
from elbus_client.errors import ArgumentError
from elbus_client.events import ConnectionEvents
from elbus_client.frame import Frame
from elbus_client.rpc import calling
from elbus_client.settings import Backoff, Overflow, Settings
from elbus_client.wire.constants import Qos
from elbus_client.wire.requests import Payload, encode_text, filters_of
from elbus_client.wire.subscription import Options

if TYPE_CHECKING:
    from elbus_client.rpc.cursor import Cursor
    from elbus_client.rpc.serving import Handler, Serving

P = TypeVar("P")
R = TypeVar("R")

_PROCESSED = Qos.PROCESSED


@dataclass(frozen=True)
class ClientStats:
    """Counters of a client."""

    #: Frames sent, including pings.
    frames_sent: int
    #: Bytes of these frames.
    bytes_sent: int
    #: Received messages, broadcasts and publications.
    frames_received: int
    #: Bytes received over the current connection.
    bytes_received: int
    #: Received frames without a consumer: late replies, and frames after their consumer has ended.
    unclaimed: int
    #: Successful reconnections.
    reconnects: int
    #: Bytes currently queued for sending.
    queued_bytes: int


def connect(
    address: str | os.PathLike[str] | Address | None,
    name: str,
    *,
    timeout: float = 5.0,
    ping_interval: float = 1.0,
    queue_bytes: int = 8 << 20,
    max_frame_bytes: int = 256 << 20,
    overflow: Overflow = Overflow.BLOCK,
    hold_limit: float = 3.0,
    queue_calls: bool = False,
    reconnect: Backoff | bool | None = None,
    tls: ssl.SSLContext | None = None,
) -> Opening[Client]:
    """Connects and registers under a name. Await it, or use it with ``async with``, which closes the client.

    ``address`` is the path of a UNIX socket, ``host:port``, or ``tls://host:port``; ``None`` is the default
    socket of this machine. Times are in seconds.

    - ``timeout``: limit for connecting, an acknowledgement, space in the send queue, and the reply to a call.
      A broker that has been silent for this long is probed, and the connection is lost after twice as long.
    - ``ping_interval``: interval of pings while nothing else is sent.
    - ``queue_bytes``: limit of bytes queued for sending, beyond which senders wait, and of received bytes
      queued for each consumer, beyond which ``overflow`` applies.
    - ``max_frame_bytes``: limit of a sent or received payload.
    - ``hold_limit``: how long a consumer that takes nothing can pause the reading of the connection.
    - ``queue_calls``: queue calls that arrive before ``serve`` until it is called.
    - ``reconnect``: a :class:`Backoff`, or ``True`` for its defaults, connects again after a lost connection
      and restores subscriptions and exclusions. The first connection is attempted once only.
    - ``tls``: the context of TLS connections; with it, ``host:port`` is TLS, too.

    Raises :class:`BadAddressError`, :class:`NoBrokerError`, :class:`NotABrokerError`, :class:`TlsError`,
    :class:`NameTakenError`, :class:`NameRefusedError`, :class:`NoPrimaryError`, :class:`AccessDeniedError`,
    :class:`DisconnectedError`, :class:`TimedOutError`, :class:`ArgumentError`.
    """
    if reconnect is True:
        reconnect = Backoff()
    elif reconnect is False:
        reconnect = None
    settings = Settings(
        timeout,
        ping_interval,
        queue_bytes,
        max_frame_bytes,
        overflow,
        hold_limit,
        queue_calls,
        reconnect,
        tls,
    )
    parsed = Address.parse(address)
    encode_text(name, "name")
    return Opening(_open(parsed, name, settings, [0]))


async def _open(address: Address, name: str, settings: Settings, secondaries: list[int]) -> Client:
    core = SupervisedCore(running_loop(), address, name, settings, secondaries)
    await core.connect()
    return Client(core)


class Client:
    """A client of a broker: registered under a name, over any transport. From :func:`connect`.

    All methods can be called concurrently from many tasks of one event loop. An operation *without*
    acknowledgement (``Qos.NO``, ``Qos.REALTIME``) completes when its frame is queued, and waits only while
    more than ``queue_bytes`` are queued. An operation *with* acknowledgement, the default, completes with the
    broker's answer. In both cases cancelling it later does not cancel a frame that is queued.
    """

    def __init__(self, core: SupervisedCore) -> None:
        #: The shared state; not part of the public interface.
        self.core = core
        self._frames = Frames(core.demux.frames)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        core = getattr(self, "core", None)
        if core is None or core.ended is not None or core.closing:
            return
        warnings.warn(
            f"unclosed {self!r}: use async with, or await close()", ResourceWarning, stacklevel=2, source=self
        )
        if not core.loop.is_closed():
            try:
                core.loop.call_soon_threadsafe(core.close_soon)
            except RuntimeError:
                pass

    def __repr__(self) -> str:
        return f"<Client {self.core.name!r} at {self.core.address}>"

    @property
    def name(self) -> str:
        """The name that the client is registered under."""
        return self.core.name

    @property
    def address(self) -> str:
        """The broker's address as text."""
        return str(self.core.address)

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected."""
        return self.core.is_connected

    @property
    def frames(self) -> Frames:
        """Messages, broadcasts, and publications for :meth:`add_filters`."""
        self.core.demux.frames.claimed = True
        return self._frames

    @property
    def raw_frames(self) -> Frames:
        """As :attr:`frames`, without the intention to consume them; for the blocking client."""
        return self._frames

    @property
    def stats(self) -> ClientStats:
        """The client's counters."""
        core, queue = self.core, self.core.send_queue
        connection = core.connection
        return ClientStats(
            frames_sent=queue.frames + queue.gathered,
            bytes_sent=queue.bytes + queue.queued,
            frames_received=core.frames_received,
            bytes_received=connection.bytes_received if connection else 0,
            unclaimed=core.demux.unclaimed + core.demux.frames.unclaimed,
            reconnects=core.reconnects,
            queued_bytes=queue.queued,
        )

    async def connected(self) -> None:
        """Waits until the client is connected; raises the reason if it has ended."""
        await self.core.wait_connected()

    async def closed(self) -> None:
        """Waits until the client has ended."""
        import asyncio

        await asyncio.shield(self.core.closed)

    def events(self) -> ConnectionEvents:
        """Returns the future changes of the connection, an async iterator."""
        return self.core.events.listen(self.core.loop, self.core.ended is not None)

    async def close(self) -> None:
        """Writes the send queue, within the client's timeout, and disconnects. The name is free when this
        returns.
        """
        await self.core.close()

    def secondary(self) -> Opening[Client]:
        """Connects a secondary client: another connection with the name ``NAME%%0``, ``NAME%%1`` and so on,
        and the settings of this client. The broker disconnects it when this client disconnects.
        """
        core = self.core
        return Opening(_open(core.address, core.next_secondary_name(), core.settings, core.secondaries))

    async def send(self, target: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Sends a message to one client.

        Raises :class:`DisconnectedError`, :class:`ClosedError`, :class:`TimedOutError`,
        :class:`QueueFullError` (real-time only), :class:`UnsendableError`, :class:`ArgumentError`; with
        acknowledgement also :class:`NotRegisteredError`, :class:`NotDeliveredError`,
        :class:`AccessDeniedError`, :class:`RefusedError`.
        """
        pending = self.core.send(MESSAGE_FLAGS, qos, target, payload)
        if pending is not None:
            await pending

    async def broadcast(self, mask: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Sends a message to all clients whose name matches a mask: ``?`` matches one part of a name, ``*``
        all remaining parts. It is not an error if no client matches. Raises as :meth:`send`.
        """
        pending = self.core.send(BROADCAST_FLAGS, qos, mask, payload)
        if pending is not None:
            await pending

    async def publish(self, topic: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Publishes to a topic. It is not an error if the topic has no subscriber. Raises as :meth:`send`."""
        pending = self.core.send(PUBLISH_FLAGS, qos, topic, payload)
        if pending is not None:
            await pending

    async def publish_for(
        self, topic: str, receiver: str, payload: Payload = b"", qos: Qos = _PROCESSED
    ) -> None:
        """Publishes to the subscribers of a topic whose primary name is ``receiver``. Raises as
        :meth:`send`.
        """
        pending = self.core.send(PUBLISH_FOR_FLAGS, qos, topic, payload, encode_text(receiver, "receiver"))
        if pending is not None:
            await pending

    def subscribe(
        self, filters: str | Iterable[str], options: Options | None = None
    ) -> IterableOpening[Subscription, Frame]:
        """Subscribes to one or more topic filters: ``+`` matches one level of a topic, ``#`` all remaining
        levels.

        Await it for a :class:`Subscription`, use it with ``async with``, or iterate it directly. Options
        apply to each filter; the broker is asked once for each connection whether it knows them. With
        ``reconnect`` the client subscribes again after each lost connection; without a connection this then
        succeeds at once.

        Raises as :meth:`send` with acknowledgement, and :class:`NotSupportedError`.
        """
        wanted = filters_of(filters)
        if options is not None and not isinstance(options, Options):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"options must be an Options, not {type(options).__name__}")
        return IterableOpening(self._subscribe(wanted, options), iter_subscription)

    async def _subscribe(self, filters: list[str], options: Options | None) -> Subscription:
        core = self.core
        names = options.names() if options is not None else []
        if options is not None and names:
            await require_features(core, names)
            prefix = options.prefix()
            filters = [prefix + filter for filter in filters]
        queue = core.new_queue()
        # registered first: nothing that arrives before the acknowledgement is missed
        id = core.demux.add_subscription(filters, queue)
        try:
            await topic_operations.subscribe(core, filters, FilterUser.SUBSCRIPTION)
        except BaseException:
            core.demux.remove_subscription(id)
            queue.discard()
            raise
        return Subscription(self, queue, id, filters)

    async def add_filters(self, filters: str | Iterable[str]) -> None:
        """Subscribes ``Client.frames`` to one or more topic filters. Publications arrive there in order with
        messages and broadcasts. Raises as :meth:`subscribe`; if the broker refuses one of the filters, none
        is added.
        """
        await topic_operations.subscribe(self.core, filters_of(filters), FilterUser.FRAMES)

    async def remove_filters(self, filters: str | Iterable[str]) -> None:
        """Reverts :meth:`add_filters`. A filter that a subscription uses as well stays subscribed."""
        await topic_operations.unsubscribe(self.core, filters_of(filters), FilterUser.FRAMES)

    async def exclude(self, filters: str | Iterable[str]) -> None:
        """Excludes topics: publications that match one of these filters are not delivered, even if they match
        a subscription.
        """
        await topic_operations.exclude(self.core, filters_of(filters))

    async def unexclude(self, filters: str | Iterable[str]) -> None:
        """Reverts :meth:`exclude`."""
        await topic_operations.unexclude(self.core, filters_of(filters))

    async def ping(self) -> None:
        """Sends a ping, which the broker does not answer. The client also pings by itself."""
        self.core.ping()

    async def round_trip(self) -> float:
        """Measures how many seconds the broker takes to acknowledge an operation that changes nothing."""
        start = time.perf_counter()
        await topic_operations.probe(self.core)
        return time.perf_counter() - start

    # RPC

    async def call(
        self,
        target: str,
        method: str,
        params: Payload = b"",
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> bytes:
        """Calls a method of another client with bytes, and returns the bytes of the result.

        If the target is not registered the call fails at once. If it disconnects before it replies, the call
        times out, after ``timeout`` or the client's. Cancelling the call forgets it.

        Raises :class:`RpcError` if the method returns an error, and as :meth:`send`.
        """
        return await calling.call(self.core, target, method, params, timeout, realtime)

    @overload
    async def call_as(
        self,
        result: type[R],
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> R: ...

    @overload
    async def call_as(
        self,
        result: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> Any: ...

    async def call_as(
        self,
        result: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> Any:
        """Calls a method with parameters and a result that are converted to and from msgpack.

        ``params`` is a mapping, a dataclass, or any other value; without it there are no parameters, ``None``
        is nil. The result is checked and converted to the type ``result``, for example ``int``, ``list[str]``
        or a dataclass.

        Raises :class:`ConversionError`, :class:`MissingPackageError`, and as :meth:`call`.
        """
        return await calling.call_as(self.core, result, target, method, params, timeout, realtime)

    async def call0(self, target: str, method: str, params: Payload = b"", qos: Qos = Qos.NO) -> None:
        """Calls a method without a reply (call id 0). Raises as :meth:`send`."""
        await calling.call0(self.core, target, method, params, qos)

    async def notify(self, target: str, payload: Payload = b"", qos: Qos = Qos.NO) -> None:
        """Sends an RPC notification. Raises as :meth:`send`."""
        await calling.notify(self.core, target, payload, qos)

    def proxy(self, interface: type[P], target: str, *, timeout: float | None = None) -> P:
        """Returns an object whose methods call those of another client.

        ``interface`` is a class with ``async def`` methods, whose type hints convert parameters and results;
        their bodies are not run.
        """
        from elbus_client.rpc.proxy import make_proxy

        return make_proxy(self.core, interface, target, timeout)

    @overload
    def cursor(
        self,
        item: type[R],
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        next: str,
    ) -> IterableOpening[Cursor[R], R]: ...

    @overload
    def cursor(
        self,
        item: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        next: str,
    ) -> IterableOpening[Cursor[Any], Any]: ...

    def cursor(
        self,
        item: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        next: str,
    ) -> IterableOpening[Cursor[Any], Any]:
        """Calls a method that opens a cursor, a long result that is fetched in parts. ``next`` is the method
        that returns its items, each of the type ``item``. Await it for a :class:`Cursor`, or iterate it
        directly.

        Raises as :meth:`call_as`.
        """
        from elbus_client.rpc.cursor import iter_cursor, open_cursor

        return IterableOpening(open_cursor(self.core, item, target, method, params, next), iter_cursor)

    def serve(self, handler: Handler) -> Serving:
        """Serves calls and notifications with a :class:`Service` or another handler; they are then no longer
        delivered to ``Client.frames``. Returns a handle, also an async context manager, that stops serving.

        Raises :class:`AlreadyServingError`.
        """
        from elbus_client.rpc.serving import Serving

        return Serving(self.core, handler)


def iter_subscription(subscription: Subscription) -> Subscription:
    """Returns the iterator of a subscription."""
    return subscription
