"""The blocking client: the operations of the asyncio client, each blocks until it is done. Owns nothing but
the hop between the threads.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar, overload

import elbus_client.api.client as aio
from elbus_client.address import Address
from elbus_client.api.client import ClientStats
from elbus_client.blocking.consumers import Cursor, Events, Frames, Subscription
from elbus_client.blocking.runtime import Runtime, runtime
from elbus_client.blocking.serving import Serving
from elbus_client.blocking.staging import Staging
from elbus_client.connection.core import (
    BROADCAST_FLAGS,
    MESSAGE_FLAGS,
    PUBLISH_FLAGS,
    PUBLISH_FOR_FLAGS,
)
from elbus_client.connection.supervisor import SupervisedCore
from elbus_client.rpc import calling
from elbus_client.rpc.serving import Handler
from elbus_client.settings import Backoff, Overflow
from elbus_client.wire.constants import WANTS_ACK, Qos
from elbus_client.wire.requests import Payload, encode_payload, encode_text, pack_header
from elbus_client.wire.subscription import Options

P = TypeVar("P")
R = TypeVar("R")

_PROCESSED = Qos.PROCESSED


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
) -> Client:
    """Connects and registers under a name; see :func:`elbus_client.connect`, which has the same
    parameters.
    """
    opening = aio.connect(
        address,
        name,
        timeout=timeout,
        ping_interval=ping_interval,
        queue_bytes=queue_bytes,
        max_frame_bytes=max_frame_bytes,
        overflow=overflow,
        hold_limit=hold_limit,
        queue_calls=queue_calls,
        reconnect=reconnect,
        tls=tls,
    )
    thread = runtime()
    return Client(thread, thread.run(_await(opening)))


async def _await(opening: Any) -> Any:
    return await opening


class Client:
    """A client of a broker, for programs without asyncio. All methods can be called from any thread.

    The methods are those of :class:`elbus_client.Client`, with the same parameters and errors.
    """

    def __init__(self, runtime: Runtime, client: aio.Client) -> None:
        self._runtime = runtime
        self._client = client
        self._core = client.core
        self._frames = Frames(runtime, client.raw_frames)
        self._staging = Staging(client.core)
        self._heads: dict[tuple[int, str], bytes] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blocking client {self.name!r} at {self.address}>"

    @property
    def core(self) -> SupervisedCore:
        """The shared state; not part of the public interface."""
        return self._core

    @property
    def name(self) -> str:
        """The name that the client is registered under."""
        return self._client.name

    @property
    def address(self) -> str:
        """The broker's address as text."""
        return self._client.address

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected."""
        return self._client.is_connected

    @property
    def frames(self) -> Frames:
        """Messages, broadcasts, and publications for :meth:`add_filters`."""
        self._core.demux.frames.claimed = True
        return self._frames

    @property
    def stats(self) -> ClientStats:
        """The client's counters."""
        return self._client.stats

    def connected(self) -> None:
        """Waits until the client is connected; raises the reason if it has ended."""
        self._runtime.run(self._client.connected())

    def closed(self) -> None:
        """Waits until the client has ended."""
        self._runtime.run(self._client.closed())

    def events(self) -> Events:
        """Returns the future changes of the connection, an iterator."""
        return Events(self._runtime, self._runtime.run(self._listen()))

    async def _listen(self) -> Any:
        return self._client.events()

    def close(self) -> None:
        """Writes the send queue, within the client's timeout, and disconnects. The name is free when this
        returns.
        """
        if self._core.ended is None:
            self._runtime.run(self._close())

    async def _close(self) -> None:
        self._staging.drain_before()
        await self._client.close()

    def secondary(self) -> Client:
        """Connects a secondary client: another connection with the name ``NAME%%0`` and so on."""
        return Client(self._runtime, self._runtime.run(_await(self._client.secondary())))

    # operations

    def _send(
        self,
        flags: dict[int, int],
        qos: int,
        field: str,
        target: str,
        payload: Payload,
        receiver: bytes = b"",
    ) -> None:
        flag = flags.get(qos) if isinstance(qos, int) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if flag is None or flag & WANTS_ACK or type(target) is not str:
            self._runtime.run(self._send_async(flags, qos, target, payload, receiver))
            return
        head = self._heads.get((flag, target))
        if head is None:
            head = encode_text(target, field)
            if len(self._heads) >= 1024:
                self._heads.clear()
            self._heads[flag, target] = head
        body = payload if type(payload) is bytes else encode_payload(payload)
        if receiver:
            body = receiver + body
        size = len(head) + len(body)
        if size > self._core.short_frame:
            self._runtime.run(self._send_async(flags, qos, target, payload, receiver))
        else:
            self._staging.put(pack_header(0, flag, size), head, body)

    async def _send_async(
        self, flags: dict[int, int], qos: int, target: str, payload: Payload, receiver: bytes
    ) -> None:
        self._staging.drain_before()
        pending = self._core.send(flags, qos, target, payload, receiver)
        if pending is not None:
            await pending

    def send(self, target: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Sends a message to one client."""
        self._send(MESSAGE_FLAGS, qos, "target", target, payload)

    def broadcast(self, mask: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Sends a message to all clients whose name matches a mask."""
        self._send(BROADCAST_FLAGS, qos, "mask", mask, payload)

    def publish(self, topic: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Publishes to a topic."""
        self._send(PUBLISH_FLAGS, qos, "topic", topic, payload)

    def publish_for(self, topic: str, receiver: str, payload: Payload = b"", qos: Qos = _PROCESSED) -> None:
        """Publishes to the subscribers of a topic whose primary name is ``receiver``."""
        self._send(PUBLISH_FOR_FLAGS, qos, "topic", topic, payload, encode_text(receiver, "receiver"))

    def subscribe(self, filters: str | Iterable[str], options: Options | None = None) -> Subscription:
        """Subscribes to one or more topic filters; the options apply to each of them."""
        opening = self._client.subscribe(filters, options)
        return Subscription(self._runtime, self._runtime.run(_await(opening)))

    def add_filters(self, filters: str | Iterable[str]) -> None:
        """Subscribes ``Client.frames`` to one or more topic filters."""
        self._runtime.run(self._client.add_filters(filters))

    def remove_filters(self, filters: str | Iterable[str]) -> None:
        """Reverts :meth:`add_filters`."""
        self._runtime.run(self._client.remove_filters(filters))

    def exclude(self, filters: str | Iterable[str]) -> None:
        """Excludes topics, even if they match a subscription."""
        self._runtime.run(self._client.exclude(filters))

    def unexclude(self, filters: str | Iterable[str]) -> None:
        """Reverts :meth:`exclude`."""
        self._runtime.run(self._client.unexclude(filters))

    def ping(self) -> None:
        """Sends a ping, which the broker does not answer."""
        self._runtime.run(self._client.ping())

    def round_trip(self) -> float:
        """Measures how many seconds the broker takes to acknowledge an operation that changes nothing."""
        start = time.perf_counter()
        self._runtime.run(self._probe())
        return time.perf_counter() - start

    async def _probe(self) -> None:
        self._staging.drain_before()
        await self._client.round_trip()

    # RPC

    def call(
        self,
        target: str,
        method: str,
        params: Payload = b"",
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> bytes:
        """Calls a method of another client with bytes, and returns the bytes of the result."""
        return self._runtime.run(
            self._client.call(target, method, params, timeout=timeout, realtime=realtime)
        )

    @overload
    def call_as(
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
    def call_as(
        self,
        result: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> Any: ...

    def call_as(
        self,
        result: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        timeout: float | None = None,
        realtime: bool = False,
    ) -> Any:
        """Calls a method with parameters and a result that are converted to and from msgpack."""
        return self._runtime.run(
            self._client.call_as(result, target, method, params, timeout=timeout, realtime=realtime)
        )

    def call0(self, target: str, method: str, params: Payload = b"", qos: Qos = Qos.NO) -> None:
        """Calls a method without a reply (call id 0)."""
        self._runtime.run(self._client.call0(target, method, params, qos))

    def notify(self, target: str, payload: Payload = b"", qos: Qos = Qos.NO) -> None:
        """Sends an RPC notification."""
        self._runtime.run(self._client.notify(target, payload, qos))

    def proxy(self, interface: type[P], target: str, *, timeout: float | None = None) -> P:
        """Returns an object whose methods call those of another client.

        ``interface`` is a class with ordinary methods, whose type hints convert parameters and results; their
        bodies are not run.
        """
        from elbus_client.rpc.proxy import make_proxy

        return make_proxy(self._core, interface, target, timeout, self._runtime.run)

    @overload
    def cursor(
        self,
        item: type[R],
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        next: str,
    ) -> Cursor[R]: ...

    @overload
    def cursor(
        self,
        item: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        next: str,
    ) -> Cursor[Any]: ...

    def cursor(
        self,
        item: Any,
        target: str,
        method: str,
        params: Any = calling.NO_PARAMS,
        *,
        next: str,
    ) -> Cursor[Any]:
        """Calls a method that opens a cursor. ``next`` is the method that returns its items."""
        opening = self._client.cursor(item, target, method, params, next=next)
        return Cursor(self._runtime, self._runtime.run(_await(opening)))

    def serve(self, handler: Handler, *, threads: int = 8) -> Serving:
        """Serves calls and notifications. Methods run in a number of threads, ``async def`` methods in the
        thread of the client.
        """
        return Serving(self._runtime, self._core, handler, threads)
