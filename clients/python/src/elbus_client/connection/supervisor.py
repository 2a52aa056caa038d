"""The lifecycle of a client: connected, lost, connected again, ended. Owns the order of these states and the
timers of a connection; never sends what a user asks for.
"""

from __future__ import annotations

import asyncio
import contextlib

from elbus_client.address import Address
from elbus_client.connection.core import Core, reason_of
from elbus_client.connection.dial import dial
from elbus_client.connection.protocol import Connection
from elbus_client.errors import ClosedError, DisconnectedError, Error, TimedOutError
from elbus_client.events import Disconnected, Retrying
from elbus_client.settings import Settings
from elbus_client.wire.constants import PROBE_FILTER, UNEXCLUDE
from elbus_client.wire.requests import encode_filters

#: How long the broker can take to close a connection that the client has shut down, in seconds.
CLOSE_TIMEOUT = 1.0


class SupervisedCore(Core):
    """A client that connects, keeps its connection alive, and reconnects."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        name: str,
        settings: Settings,
        secondaries: list[int],
    ) -> None:
        super().__init__(loop, address, name, settings, secondaries)
        self._reconnecting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._keep_alive: asyncio.TimerHandle | None = None
        self._reads = 0
        self._silent_since = 0.0
        self._probed = False
        self._lost_waiter: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Connects and registers, within the timeout. Cancellation leaves nothing behind."""
        loop, timeout = self.loop, self.settings.timeout
        connection = Connection(
            loop,
            self,
            self.new_parser(),
            str(self.address),
            self.name,
            self.hello,
            self.address.transport == "tls"
            or (self.settings.tls is not None and self.address.transport == "tcp"),
        )
        registered = connection.registered
        dialing = loop.create_task(dial(loop, self.address, self.settings.tls, timeout, lambda: connection))

        def dialed(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None and not registered.done():
                registered.set_exception(error)

        dialing.add_done_callback(dialed)
        failure = TimedOutError(f"connecting to {self.address}", timeout)
        timer = loop.call_later(timeout, connection.fail, failure)
        try:
            await registered
        except BaseException as error:
            reason = error if isinstance(error, Error) else ClosedError()
            connection.fail(reason)
            if not dialing.done():
                dialing.cancel()
            if connection is self.connection:
                self.end(reason)
            if not isinstance(error, (Error, asyncio.CancelledError)):
                raise DisconnectedError(f"cannot connect to {self.address}: {error}") from error
            raise
        finally:
            timer.cancel()

    # callbacks of the connection

    def on_registered(self, connection: Connection) -> None:
        super().on_registered(connection)
        self._reads, self._silent_since, self._probed = connection.reads, self.loop.time(), False
        self._arm_keep_alive()

    def on_lost(self, connection: Connection, error: Error) -> None:
        if connection is not self.connection:
            return
        self._cancel_keep_alive()
        if self._lost_waiter is not None and not self._lost_waiter.done():
            self._lost_waiter.set_result(None)
        if self.closing:
            self.end(ClosedError())
            return
        self.detach(error)
        self.emit(Disconnected(reason_of(error)))
        if self.settings.reconnect is None:
            self.end(error)
        else:
            self._reconnecting = self.loop.create_task(self._reconnect(error))

    async def _reconnect(self, reason: Error) -> None:
        """Tries to connect until it succeeds or the attempts are used up."""
        backoff = self.settings.reconnect
        assert backoff is not None
        attempt = 0
        try:
            while True:
                attempt += 1
                after = backoff.delay(attempt)
                if after is None:
                    self.end(reason)
                    return
                self.emit(Retrying(attempt, after, reason_of(reason)))
                await asyncio.sleep(after)
                try:
                    await self.connect()
                except Error as error:
                    reason = error
                    continue
                self.reconnects += 1
                return
        except asyncio.CancelledError:
            self.end(ClosedError())
            raise

    # keep-alive

    def _arm_keep_alive(self) -> None:
        interval = min(self.settings.ping_interval, self.settings.timeout)
        self._keep_alive = self.loop.call_later(interval, self._check_alive)

    def _cancel_keep_alive(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
            self._keep_alive = None

    def _check_alive(self) -> None:
        """Pings. Ends the connection when the broker has been silent for twice the timeout, although a probe
        was sent after the first half.
        """
        connection, queue = self.connection, self.send_queue
        if connection is None or queue.transport is None:
            return
        if queue.is_idle():
            self.ping()
        now, timeout = self.loop.time(), self.settings.timeout
        if connection.reads != self._reads or self.flow.paused:
            self._reads, self._silent_since, self._probed = connection.reads, now, False
        silent = now - self._silent_since + 1e-6
        if silent >= 2 * timeout and self._probed:
            connection.fail(DisconnectedError(f"the broker has been silent for {silent:.1f} s"))
            return
        if silent >= timeout and not self._probed:
            self._probed = True
            if not queue.paused:
                self.send_with_callback(UNEXCLUDE, (encode_filters([PROBE_FILTER]),), lambda code: None)
        self._arm_keep_alive()

    # closing

    async def close(self) -> None:
        """Writes the send queue, within the timeout, and disconnects."""
        if self.ended is not None:
            return
        if self._closing is None:
            self.closing = True
            self._closing = self.loop.create_task(self._close())
        await asyncio.shield(self._closing)

    def close_soon(self) -> None:
        """As :meth:`close`, without waiting for it."""
        if self.ended is None and self._closing is None:
            self.closing = True
            self._closing = self.loop.create_task(self._close())

    async def _close(self) -> None:
        connection = self.connection
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if connection is None:
            self.end(ClosedError())
            return
        try:
            deadline = self.loop.time() + self.settings.timeout
            while self.send_queue.parts and self.send_queue.transport and self.loop.time() < deadline:
                await self._wait(self.send_queue.drained(), deadline - self.loop.time())
            self.send_queue.transport = None
            self._lost_waiter = self.loop.create_future()
            transport = connection.transport
            if transport is not None and self.connection is connection:
                with contextlib.suppress(OSError, NotImplementedError, RuntimeError):
                    if transport.can_write_eof():
                        transport.write_eof()
                    else:
                        transport.close()
                await self._wait(self._lost_waiter, CLOSE_TIMEOUT)
        finally:
            connection.abort()
            self._cancel_keep_alive()
            self.end(ClosedError())

    async def _wait(self, future: asyncio.Future[None], after: float) -> None:
        """Waits for a future, at most for a time."""

        def expire() -> None:
            if not future.done():
                future.set_result(None)

        timer = self.loop.call_later(after, expire)
        try:
            await future
        finally:
            timer.cancel()
