"""Names of the packages busrt and busrt-async that are the same in both. Owns frames and payloads; never
sends.
"""

from __future__ import annotations

from typing import Any, Union

from elbus_client.frame import Frame as ReceivedFrame
from elbus_client.wire import rpc
from elbus_client.wire.constants import SECONDARY_SEPARATOR

OP_NOP = 0x00
OP_PUBLISH = 0x01
OP_SUBSCRIBE = 0x02
OP_UNSUBSCRIBE = 0x03
OP_MESSAGE = 0x12
OP_BROADCAST = 0x13
OP_ACK = 0xFE

RESPONSE_OK = 0x01
ERR_CLIENT_NOT_REGISTERED = 0x71
ERR_DATA = 0x72
ERR_IO = 0x73
ERR_OTHER = 0x74
ERR_NOT_SUPPORTED = 0x75
ERR_BUSY = 0x76
ERR_NOT_DELIVERED = 0x77
ERR_TIMEOUT = 0x78

RPC_NOTIFICATION = rpc.NOTIFICATION
RPC_REQUEST = rpc.REQUEST
RPC_REPLY = rpc.REPLY
RPC_ERROR = rpc.ERROR
RPC_ERROR_CODE_PARSE = rpc.PARSE_ERROR
RPC_ERROR_CODE_INVALID_REQUEST = rpc.INVALID_REQUEST
RPC_ERROR_CODE_METHOD_NOT_FOUND = rpc.METHOD_NOT_FOUND
RPC_ERROR_CODE_INVALID_METHOD_PARAMS = rpc.INVALID_PARAMS
RPC_ERROR_CODE_INTERNAL = rpc.INTERNAL_ERROR


class Frame:
    """A frame to be sent, or a received one with ``sender``, ``primary_sender`` and ``topic``."""

    def __init__(self, payload: Any = None, tp: int = OP_MESSAGE, qos: int = 0) -> None:
        self.payload = payload
        self.type = tp
        self.qos = qos
        self.topic: Any = None
        self.sender: str | None = None
        self.primary_sender: str | None = None


def received(frame: ReceivedFrame) -> Frame:
    """Returns a received frame in the form of busrt."""
    converted = Frame(frame.payload, int(frame.kind))
    converted.sender = frame.sender
    converted.primary_sender = frame.sender.partition(SECONDARY_SEPARATOR)[0]
    converted.topic = frame.topic if frame.kind == OP_PUBLISH else None
    return converted


def _encoded(part: Any) -> bytes:
    if part is None:
        return b""
    return part.encode() if isinstance(part, str) else bytes(part)


def _as_list(topics: Any) -> list[Any]:
    several: list[Any] = [*topics] if hasattr(topics, "append") else [topics]
    return several


def body_of(target: Union[str, bytes, None], frame: Frame) -> bytes:
    """Returns the body of a frame: target and payload, or filters."""
    if frame.type in (OP_SUBSCRIBE, OP_UNSUBSCRIBE):
        return b"\0".join(_encoded(topic) for topic in _as_list(frame.topic))
    return _encoded(target) + b"\0" + _encoded(frame.payload)


class RpcException(Exception):
    """An error of a call, or of a method."""

    def __init__(self, msg: Any = "", code: int = RPC_ERROR_CODE_INTERNAL) -> None:
        self.rpc_error_code = code
        self.rpc_error_payload = msg
        super().__init__(msg)

    def __str__(self) -> str:
        return f"{super().__str__()} (code: {self.rpc_error_code})"


class Notification:
    """A notification to be sent."""

    def __init__(self, payload: Any = b"") -> None:
        self.payload = payload
        self.qos = 1

    def message(self) -> Frame:
        """Returns the frame that carries it."""
        return Frame(bytes([RPC_NOTIFICATION]) + _encoded(self.payload), qos=self.qos)


class Request:
    """A call to be sent."""

    def __init__(self, method: Union[str, bytes], params: Any = b"") -> None:
        self.method = _encoded(method)
        self.payload = params
        self.qos = 1

    def message(self, call_id: int) -> Frame:
        """Returns the frame that carries it."""
        head = rpc.encode_request_head(call_id, self.method + b"\0")
        return Frame(head + _encoded(self.payload), qos=self.qos)


class Reply:
    """The result of a call."""

    def __init__(self, result: Any = b"") -> None:
        self.payload = result


class Event:
    """A received call, notification or reply; ``method`` and ``call_id`` of a call."""

    def __init__(self, tp: int, frame: Frame, payload_pos: int) -> None:
        self.tp = tp
        self.frame = frame
        self.call_id = 0
        self.method = b""
        self._payload_pos = payload_pos

    def get_payload(self) -> bytes:
        """Returns parameters, result or payload."""
        payload: bytes = self.frame.payload[self._payload_pos :]
        return payload


def event_of(frame: Frame) -> Event | None:
    """Returns the event that a message carries; ``None`` if it is not RPC."""
    payload: bytes = frame.payload
    if frame.type != OP_MESSAGE or not payload:
        return None
    if payload[0] == RPC_NOTIFICATION:
        return Event(RPC_NOTIFICATION, frame, 1)
    if payload[0] == RPC_REQUEST:
        request = rpc.decode_request(payload)
        if request is not None:
            event = Event(RPC_REQUEST, frame, len(payload) - len(request[2]))
            event.call_id, event.method = request[0], request[1]
            return event
    elif payload[0] in (RPC_REPLY, RPC_ERROR):
        position = 5 if payload[0] == RPC_REPLY else 7
        if len(payload) >= position:
            event = Event(payload[0], frame, position)
            event.call_id = int.from_bytes(payload[1:5], "little")
            return event
    return None


def error_of(event: Event) -> RpcException:
    """Returns the error that an error reply carries."""
    decoded = rpc.decode_error(event.frame.payload)
    return RpcException(event.get_payload(), decoded[1] if decoded else RPC_ERROR_CODE_INTERNAL)


def refused(code: int) -> RpcException:
    """Returns the error of a call that the broker has not delivered."""
    return RpcException("RPC error", rpc.CODE_BASE - code)


def reply_to(event: Event, result: Any) -> Frame:
    """Returns the reply to a call."""
    return Frame(rpc.encode_reply_head(event.call_id) + _encoded(result))


def failure_of(event: Event, error: Exception) -> Frame:
    """Returns the error reply to a call."""
    if isinstance(error, RpcException):
        code, text = error.rpc_error_code, error.rpc_error_payload
    else:
        code, text = RPC_ERROR_CODE_INTERNAL, str(error)
    return Frame(rpc.encode_error_head(event.call_id, code) + _encoded(text))


def refusal(error: Exception) -> RuntimeError:
    """Returns the error of ``connect`` for a code of the broker."""
    return RuntimeError(f"Server response: {hex(getattr(error, 'code', 0) or 0)}")
