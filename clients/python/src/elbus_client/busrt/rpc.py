"""The module ``rpc`` of busrt: calls and methods, each method in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from elbus_client.busrt.client import Client, ClientFrame, on_frame_default
from elbus_client.busrt.names import (
    ERR_IO,
    RESPONSE_OK,
    RPC_ERROR,
    RPC_ERROR_CODE_INTERNAL,
    RPC_ERROR_CODE_INVALID_METHOD_PARAMS,
    RPC_ERROR_CODE_INVALID_REQUEST,
    RPC_ERROR_CODE_METHOD_NOT_FOUND,
    RPC_ERROR_CODE_PARSE,
    RPC_NOTIFICATION,
    RPC_REPLY,
    RPC_REQUEST,
    Event,
    Frame,
    Notification,
    Reply,
    Request,
    RpcException,
    error_of,
    event_of,
    failure_of,
    refused,
    reply_to,
)
from elbus_client.errors import Error

__all__ = [
    "RPC_ERROR",
    "RPC_ERROR_CODE_INTERNAL",
    "RPC_ERROR_CODE_INVALID_METHOD_PARAMS",
    "RPC_ERROR_CODE_INVALID_REQUEST",
    "RPC_ERROR_CODE_METHOD_NOT_FOUND",
    "RPC_ERROR_CODE_PARSE",
    "RPC_NOTIFICATION",
    "RPC_REPLY",
    "RPC_REQUEST",
    "Event",
    "Notification",
    "Reply",
    "Request",
    "Rpc",
    "RpcCallEvent",
    "RpcException",
]


def on_call_default(event: Event) -> Any:
    """Answers that there is no method."""
    raise RpcException("RPC Engine not initialized", RPC_ERROR_CODE_METHOD_NOT_FOUND)


def on_notification_default(event: Event) -> None:
    """Ignores a notification."""


class RpcCallEvent:
    """A call that has been sent."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.error: RpcException | None = None
        self.completed = threading.Event()
        self._event: Event | None = None

    def complete(self, event: Event | None, error: RpcException | None) -> None:
        """Sets the outcome."""
        self._event, self.error = event, error
        self.frame = event.frame if event else None
        self.completed.set()

    def is_completed(self) -> bool:
        """Returns whether the outcome is known."""
        return self.completed.is_set()

    def wait_completed(self, timeout: float | None = None) -> RpcCallEvent:
        """Waits for the reply; raises :class:`RpcException` if the call has failed."""
        if not self.completed.wait(timeout):
            raise TimeoutError
        if self.error is not None:
            raise self.error
        return self

    def get_payload(self) -> bytes | None:
        """Returns the result."""
        return self._event.get_payload() if self._event else None

    def is_empty(self) -> bool:
        """Returns whether there is no result."""
        return not self.get_payload()


class _Request(ClientFrame):
    """The frame of a call: a refusal ends the call."""

    def __init__(self, rpc: Rpc, call_id: int) -> None:
        super().__init__(1)
        self._rpc = rpc
        self._call_id = call_id

    def complete(self, code: int) -> None:
        super().complete(code)
        if code != RESPONSE_OK:
            self._rpc.finish(self._call_id, None, refused(code))


class Rpc:
    """Calls and methods of a client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.client.on_frame = self._handle_frame
        self.on_frame: Callable[[Frame], Any] = on_frame_default
        self.on_call: Callable[[Event], Any] = on_call_default
        self.on_notification: Callable[[Event], Any] = on_notification_default
        self._last_id = 0
        self.calls: dict[int, RpcCallEvent] = {}
        self._lock = threading.Lock()

    def is_connected(self) -> bool:
        """Returns whether the client is connected."""
        return self.client.is_connected()

    def notify(self, target: str, notification: Notification) -> ClientFrame:
        """Sends a notification."""
        return self.client.send(target, notification.message())

    def call0(self, target: str, request: Request) -> ClientFrame:
        """Calls a method without a reply."""
        return self.client.send(target, request.message(0))

    def call(self, target: str, request: Request) -> RpcCallEvent:
        """Calls a method; the returned object waits for the reply."""
        call = RpcCallEvent()
        with self._lock:
            self._last_id = call_id = self._last_id % 0xFFFFFFFF + 1
            self.calls[call_id] = call
        try:
            self.client.send_with(target, request.message(call_id), _Request(self, call_id))
        except (Error, OSError):
            self.finish(call_id, None, refused(ERR_IO))
        return call

    def finish(self, call_id: int, event: Event | None, error: RpcException | None) -> None:
        """Ends a call."""
        with self._lock:
            call = self.calls.pop(call_id, None)
        if call is not None:
            call.complete(event, error)

    def _handle_frame(self, frame: Frame) -> None:
        event = event_of(frame)
        if event is None:
            self.spawn(self.on_frame, frame)
        elif event.tp == RPC_NOTIFICATION:
            self.spawn(self.on_notification, event)
        elif event.tp == RPC_REQUEST:
            self.spawn(self._answer, event)
        else:
            self.finish(event.call_id, event, error_of(event) if event.tp == RPC_ERROR else None)

    def _answer(self, event: Event) -> None:
        try:
            reply = reply_to(event, self.on_call(event))
        except Exception as error:
            reply = failure_of(event, error)
        if event.call_id:
            self.client.send(event.frame.sender, reply)

    def spawn(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Runs a function in a thread."""
        threading.Thread(target=f, args=args, kwargs=kwargs, daemon=True).start()
