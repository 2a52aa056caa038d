"""Serving calls: order, concurrency, replies. Owns the tasks of a server; never the methods."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable
from types import TracebackType
from typing import Protocol

from elbus_client.connection.core import MESSAGE_FLAGS, Core
from elbus_client.errors import ArgumentError, Error, UnsendableError
from elbus_client.frame import Frame
from elbus_client.rpc.errors import RpcError, as_rpc_error
from elbus_client.rpc.service import Call, Contained, Notification, Result
from elbus_client.settings import Overflow
from elbus_client.wire import rpc
from elbus_client.wire.constants import Qos

LOG = logging.getLogger("elbus_client")

#: Calls that run at the same time; further ones wait.
MAX_CONCURRENT_CALLS = 1024
#: Notifications that wait for an earlier one; further ones hold up the server.
QUEUED_NOTIFICATIONS = 1024


class Handler(Protocol):
    """What answers calls: a :class:`Service`, or an object with these methods."""

    def handle_call(self, call: Call) -> Result:
        """Returns the bytes of the result or an awaitable of them; raises :class:`RpcError`."""
        ...

    def handle_notification(self, notification: Notification) -> Awaitable[None] | None:
        """Receives a notification. Awaitables run one after another."""
        ...


class Serving:
    """A running server of calls; from ``Client.serve``. An async context manager, which drains it."""

    def __init__(self, core: Core, handler: Handler) -> None:
        if not hasattr(handler, "handle_call") or not hasattr(handler, "handle_notification"):
            raise ArgumentError(
                f"serve expects a Service, or an object with handle_call and handle_notification, "
                f"not {handler!r}"
            )
        self._core = core
        self._handler = handler
        if core.queued_calls is not None:
            self._queue, core.queued_calls = core.queued_calls, None
        else:
            self._queue = core.new_queue(Overflow.BLOCK)
            core.demux.start_serving(self._queue)
        self._calls: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._notifications: asyncio.Queue[Notification] | None = None
        self._notifier: asyncio.Task[None] | None = None
        self._stopped = False
        self._task = core.loop.create_task(self._serve())

    async def __aenter__(self) -> Serving:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drain()

    def stop(self) -> None:
        """Stops accepting calls and cancels those that run. Further calls are delivered as frames."""
        self._stop_accepting()
        self._task.cancel()
        if self._notifier is not None:
            self._notifier.cancel()
        for task in self._calls:
            task.cancel()

    async def drain(self) -> None:
        """Stops accepting calls and waits until all that have arrived are answered, within the client's
        timeout.
        """
        self._stop_accepting()
        tasks = [self._task]
        await asyncio.wait(tasks, timeout=self._core.settings.timeout)
        self.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._task, *self._calls, return_exceptions=True)

    async def wait(self) -> None:
        """Waits until the server ends, because it was stopped or the client has ended."""
        await asyncio.wait([self._task])

    def _stop_accepting(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._core.demux.stop_serving()

    async def _serve(self) -> None:
        queue = self._queue
        try:
            while True:
                frame = await queue.next()
                if frame is None:
                    break
                if frame.payload[0] == rpc.REQUEST:
                    await self._on_request(frame)
                else:
                    await self._on_notification(Notification.of(frame))
            if self._calls:
                await asyncio.wait(self._calls)
            if self._notifications is not None:
                await self._notifications.join()
        finally:
            self._stop_accepting()
            if self._notifier is not None:
                self._notifier.cancel()

    async def _on_request(self, frame: Frame) -> None:
        request = rpc.decode_request(frame.payload)
        if request is None:
            return
        id, raw_method, params = request
        try:
            method = raw_method.decode()
        except UnicodeDecodeError:
            self._reply(frame, id, RpcError(rpc.CODE_BASE - 0x72))
            return
        call = Call(frame.sender, method, params, frame.realtime, id)
        try:
            result = self._handler.handle_call(call)
            if isinstance(result, (bytes, bytearray)):
                self._reply(frame, id, bytes(result))
                return
        except (Exception, asyncio.CancelledError) as error:
            self._reply(frame, id, self._failed(call, error))
            return
        if self._slots.locked():
            # the call has begun; the next one waits until another one ends
            await self._start(frame, id, call, result)
        else:
            await self._slots.acquire()
            self._spawn(frame, id, call, result)

    async def _start(self, frame: Frame, id: int, call: Call, result: Awaitable[bytes]) -> None:
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            if inspect.iscoroutine(result):
                result.close()
            raise
        self._spawn(frame, id, call, result)

    def _spawn(self, frame: Frame, id: int, call: Call, result: Awaitable[bytes]) -> None:
        task = self._core.loop.create_task(self._answer(frame, id, call, result))
        self._calls.add(task)
        task.add_done_callback(self._on_answered)

    def _on_answered(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._slots.release()

    async def _answer(self, frame: Frame, id: int, call: Call, result: Awaitable[bytes]) -> None:
        outcome: bytes | RpcError
        try:
            outcome = await result
        except asyncio.CancelledError:
            self._reply(frame, id, RpcError.internal("the server was stopped"))
            raise
        except Exception as error:
            outcome = self._failed(call, error)
        except BaseException as error:
            # ends the program, unless the client is a blocking one
            self._reply(frame, id, self._failed(call, error))
            raise
        self._reply(frame, id, outcome)

    def _failed(self, call: Call, error: BaseException) -> RpcError:
        if isinstance(error, Error):
            return as_rpc_error(error)
        if isinstance(error, Contained) and error.__cause__ is not None:
            error = error.__cause__
        LOG.error(
            "a method raised an exception method=%r caller=%r", call.method, call.sender, exc_info=error
        )
        return RpcError.internal(f"the method raised {type(error).__name__}")

    def _reply(self, frame: Frame, id: int, outcome: bytes | RpcError) -> None:
        if id == rpc.NO_REPLY:
            return
        try:
            self._send_reply(frame, _reply_payload(id, outcome))
        except (ArgumentError, UnsendableError) as error:
            # the caller must not wait for what cannot be sent
            self._send_reply(
                frame, _reply_payload(id, RpcError.internal(f"the result cannot be sent: {error}"))
            )

    def _send_reply(self, frame: Frame, payload: bytes) -> None:
        try:
            pending = self._core.send(
                MESSAGE_FLAGS, Qos.REALTIME if frame.realtime else Qos.NO, frame.sender, payload
            )
            if pending is not None:
                self._core.loop.create_task(self._finish(frame.sender, pending))
        except UnsendableError:
            raise
        except Error as error:
            LOG.debug("cannot send a reply caller=%r reason=%s", frame.sender, error)

    async def _finish(self, caller: str, pending: Awaitable[object]) -> None:
        try:
            await pending
        except Error as error:
            LOG.debug("cannot send a reply caller=%r reason=%s", caller, error)

    async def _on_notification(self, notification: Notification) -> None:
        if self._notifications is None:
            try:
                result = self._handler.handle_notification(notification)
            except (Exception, asyncio.CancelledError) as error:
                self._notification_failed(notification, error)
                return
            if result is None:
                return
            self._notifications = asyncio.Queue(QUEUED_NOTIFICATIONS)
            self._notifier = self._core.loop.create_task(self._notify(result, notification))
        else:
            await self._notifications.put(notification)

    async def _notify(self, first: Awaitable[None], notification: Notification) -> None:
        queue = self._notifications
        assert queue is not None
        result: Awaitable[None] | None = first
        while True:
            try:
                if result is not None:
                    await result
            except Exception as error:
                self._notification_failed(notification, error)
            except asyncio.CancelledError as error:
                if self._stopped:
                    raise
                self._notification_failed(notification, error)
            if result is not first:
                queue.task_done()
            notification = await queue.get()
            try:
                result = self._handler.handle_notification(notification)
            except (Exception, asyncio.CancelledError) as error:
                result = None
                self._notification_failed(notification, error)

    def _notification_failed(self, notification: Notification, error: BaseException) -> None:
        LOG.error("the receiver of a notification raised sender=%r", notification.sender, exc_info=error)


def _reply_payload(id: int, outcome: object) -> bytes:
    """Returns the payload of a reply; raises :class:`ArgumentError` if a handler returned something else."""
    if isinstance(outcome, RpcError):
        return rpc.encode_error_head(id, outcome.rpc_code) + outcome.data
    if not isinstance(outcome, (bytes, bytearray)):
        raise ArgumentError(f"handle_call must return bytes, not {type(outcome).__name__}")
    return rpc.encode_reply_head(id) + outcome
