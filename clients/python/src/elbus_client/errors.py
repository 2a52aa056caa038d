"""Errors of the client. Owns their texts: what failed, the value, the limit and the remedy; never raises
them.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

E = TypeVar("E", bound="Error")

#: Result codes of the broker (protocol section 1) with their meaning.
CODES: dict[int, str] = {
    0x71: "not registered",
    0x72: "invalid data",
    0x73: "input or output error",
    0x74: "other error",
    0x75: "not supported",
    0x76: "busy",
    0x77: "not delivered",
    0x78: "timed out",
    0x79: "access denied",
}

OK = 0x01
NOT_REGISTERED = 0x71
BAD_DATA = 0x72
IO = 0x73
BUSY = 0x76
NOT_DELIVERED = 0x77
TIMEOUT = 0x78
ACCESS_DENIED = 0x79


class Error(Exception):
    """An error of the client. Its text is one line and names a remedy if there is one.

    ``kind`` is the kind of the error as in the conformance data, the same in every language. ``code`` is the
    code that the broker refused the operation or the name with, or ``None``.
    """

    kind: ClassVar[str] = "error"
    code: int | None = None

    def fresh(self: E) -> E:
        """Returns a copy without traceback, for another operation that ends for the same reason."""
        copy = type(self).__new__(type(self))
        copy.args = self.args
        copy.__dict__.update(self.__dict__)
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[E], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> E:
    """Returns a pickled error."""
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class NoBrokerError(Error, ConnectionError):
    """Nothing listens at the address."""

    kind = "no-broker"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"no broker at {address} ({reason}): start elbusd or check the address")
        self.address = address


class NotABrokerError(Error, ConnectionError):
    """The program at the address does not speak the protocol."""

    kind = "not-a-broker"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address} is not an ELBUS broker: it {reason}: check the address")
        self.address = address


class TlsError(Error, ConnectionError):
    """The TLS connection could not be established."""

    kind = "tls"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"cannot establish a TLS connection to {address}: {reason}: "
            "check the certificates of the broker and of the SSL context"
        )
        self.address = address


class NameTakenError(Error):
    """Another client has the name."""

    kind = "name-taken"
    code = BUSY

    def __init__(self, name: str) -> None:
        super().__init__(f"another client is registered as {name!r}: choose another name or stop that client")
        self.name = name


class NameRefusedError(Error):
    """The broker refused the name."""

    kind = "name-refused"

    def __init__(self, name: str, code: int) -> None:
        super().__init__(
            f"the broker refused the name {name!r} ({CODES.get(code, 'unknown code')}): a name must not be "
            "empty, start with a dot, contain a NUL byte or exceed the broker's max_name_bytes"
        )
        self.name = name
        self.code = code


class NoPrimaryError(Error):
    """The name is that of a secondary client, and its primary client is not registered."""

    kind = "no-primary"
    code = NOT_REGISTERED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is a secondary name and its primary client is not registered: connect that first"
        )
        self.name = name


class AccessDeniedError(Error, PermissionError):
    """The broker's access rules do not allow the operation."""

    kind = "access-denied"
    code = ACCESS_DENIED

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"access denied: {operation}: the broker's access rules do not allow it; "
            "`elbus broker explain` shows the rule"
        )
        self.operation = operation


class NotRegisteredError(Error):
    """No client is registered under the target's name."""

    kind = "not-registered"
    code = NOT_REGISTERED

    def __init__(self, target: str) -> None:
        super().__init__(f"no client is registered as {target!r}: start it or check the name")
        self.target = target


class NotDeliveredError(Error):
    """The target's queue is full."""

    kind = "not-delivered"
    code = NOT_DELIVERED

    def __init__(self, target: str) -> None:
        super().__init__(f"not delivered: the queue of {target!r} is full: send less, or without real-time")
        self.target = target


class RefusedError(Error):
    """The broker refused the operation with another code."""

    kind = "refused"

    def __init__(self, operation: str, code: int) -> None:
        meaning = CODES.get(code, "unknown code")
        super().__init__(f"{operation}: refused by the broker: {meaning} (0x{code:02x})")
        self.operation = operation
        self.code = code


class TimedOutError(Error, TimeoutError):
    """The operation did not complete in time."""

    kind = "timeout"

    def __init__(self, operation: str, after: float) -> None:
        super().__init__(
            f"{operation}: timed out after {after:g} s: check that the peer runs, or set a longer timeout"
        )
        self.operation = operation
        self.after = after


class DisconnectedError(Error, ConnectionError):
    """The client is not connected, or the connection was lost before the outcome was known."""

    kind = "disconnected"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not connected: {reason}")
        self.reason = reason


class ClosedError(Error, ConnectionError):
    """The client has been closed."""

    kind = "closed"

    def __init__(self) -> None:
        super().__init__("the client has been closed: connect a new one")


class QueueFullError(Error):
    """The send queue is too long for another real-time frame, or for a frame that must not wait."""

    kind = "queue-full"

    def __init__(self, queued: int, limit: int) -> None:
        super().__init__(
            f"{queued} bytes are queued; the limit for real-time frames is {limit} (twice queue_bytes): "
            "send less, or without real-time"
        )
        self.queued = queued
        self.limit = limit


class UnsendableError(Error, ValueError):
    """The operation cannot be encoded: a text contains a NUL, or a part is too long."""

    kind = "unsendable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot be encoded: {reason}")


class FrameTooLongError(UnsendableError):
    """The payload is longer than ``max_frame_bytes``."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(
            f"payload of {length} bytes exceeds the limit of {limit} bytes (max_frame_bytes): "
            "send it in parts, or raise max_frame_bytes here and in the broker"
        )
        self.length = length
        self.limit = limit


class NotSupportedError(Error):
    """The broker does not know an option of a subscription."""

    kind = "not-supported"

    def __init__(self, option: str) -> None:
        super().__init__(
            f"the broker does not know the option {option!r} of subscriptions: upgrade it, or subscribe "
            "without the option"
        )
        self.option = option


class BadAddressError(Error, ValueError):
    """The text is not an address."""

    kind = "bad-address"

    def __init__(self, text: object) -> None:
        remedy = ""
        if isinstance(text, str) and text.strip().startswith(("ws:", "wss:")):
            remedy = "; this client does not speak WebSocket: bind the broker to one of these as well"
        super().__init__(
            f"{text!r} is not a broker address: expected a UNIX socket path, host:port or tls://host:port"
            f"{remedy}"
        )


class ArgumentError(Error, TypeError, ValueError):
    """An argument has the wrong type or value. Nothing has been sent."""

    kind = "invalid-argument"


class ConversionError(Error, ValueError):
    """Parameters or a result could not be converted to or from msgpack or a type."""

    kind = "conversion"


class MissingPackageError(Error, ImportError):
    """An optional package is not installed."""

    kind = "missing-package"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs the package msgpack: pip install 'elbus-client[rpc]'; "
            "calls with bytes work without it"
        )


class AlreadyServingError(Error):
    """The client already serves calls."""

    kind = "already-serving"

    def __init__(self) -> None:
        super().__init__("the client already serves calls: stop its server first, or use a secondary client")


class WrongThreadError(Error, RuntimeError):
    """A client was used from a thread, event loop or process that it does not belong to."""

    kind = "wrong-thread"


def from_code(code: int, operation: str, target: str) -> Error:
    """Converts the code of an acknowledgement. ``operation`` is a verb that precedes the target."""
    if code == NOT_REGISTERED:
        return NotRegisteredError(target)
    if code == NOT_DELIVERED:
        return NotDeliveredError(target)
    if code == ACCESS_DENIED:
        return AccessDeniedError(f"{operation} {target!r}")
    return RefusedError(f"{operation} {target!r}", code)
