"""The error that a method returns to its caller (protocol section 7). Owns its codes and text."""

from __future__ import annotations

from elbus_client.errors import (
    CODES,
    AccessDeniedError,
    ArgumentError,
    ClosedError,
    DisconnectedError,
    Error,
    NotDeliveredError,
    NotRegisteredError,
    QueueFullError,
    TimedOutError,
)
from elbus_client.wire import rpc

#: Longer data is not part of the text of an error.
MAX_TEXT_BYTES = 4096

_MEANINGS = {
    rpc.PARSE_ERROR: "parameters cannot be parsed",
    rpc.INVALID_REQUEST: "invalid request",
    rpc.METHOD_NOT_FOUND: "no such method",
    rpc.INVALID_PARAMS: "invalid parameters",
    rpc.INTERNAL_ERROR: "internal error",
    rpc.NOT_FOUND: "not found",
}


class RpcError(Error):
    """The error that a called method returned; raised by a method, it is sent to the caller.

    ``rpc_code`` is a code of protocol section 7, or the method's own, from -32768 to 32767. ``data`` is
    usually text, and can be empty.

    >>> str(RpcError(-32602, "temperature must be at most 90"))
    'rpc error -32602 (invalid parameters): temperature must be at most 90'
    """

    kind = "rpc"

    def __init__(self, code: int, data: bytes | str = b"") -> None:
        if isinstance(code, bool) or not isinstance(code, int) or not -32768 <= code <= 32767:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"the code of an RpcError must be an integer from -32768 to 32767, not {code!r}"
            )
        if not isinstance(data, (bytes, bytearray, str)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"the data of an RpcError must be bytes or str, not {type(data).__name__}")
        self.rpc_code = int(code)
        self.data = data.encode("utf-8", "replace") if isinstance(data, str) else bytes(data)
        super().__init__(code, self.data)

    @property
    def text(self) -> str | None:
        """The data if it is text."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return None

    @property
    def meaning(self) -> str | None:
        """The meaning of the code if the protocol defines it."""
        return _MEANINGS.get(self.rpc_code) or CODES.get(rpc.CODE_BASE - self.rpc_code)

    def __str__(self) -> str:
        meaning = f" ({self.meaning})" if self.meaning else ""
        text = self.text if len(self.data) <= MAX_TEXT_BYTES else None
        if text is None:
            detail = f": {len(self.data)} bytes of data"
        else:
            detail = f": {text}" if text else ""
            detail = detail.encode("unicode_escape").decode() if not detail.isprintable() else detail
        return f"rpc error {self.rpc_code}{meaning}{detail}"

    @staticmethod
    def method_not_found() -> RpcError:
        """The error for a method that does not exist: -32601."""
        return RpcError(rpc.METHOD_NOT_FOUND)

    @staticmethod
    def invalid_params(text: str) -> RpcError:
        """The error for parameters that do not fit the method: -32602."""
        return RpcError(rpc.INVALID_PARAMS, text)

    @staticmethod
    def parse(text: str) -> RpcError:
        """The error for parameters that cannot be parsed: -32700."""
        return RpcError(rpc.PARSE_ERROR, text)

    @staticmethod
    def internal(text: str) -> RpcError:
        """The error for a method that failed: -32603."""
        return RpcError(rpc.INTERNAL_ERROR, text)

    @staticmethod
    def not_found() -> RpcError:
        """The error for an object that does not exist: -32001."""
        return RpcError(rpc.NOT_FOUND)


def as_rpc_error(error: Error) -> RpcError:
    """Converts the error of a method that itself calls or sends: the error of a called method is passed on,
    an error of the bus becomes its RPC code.
    """
    if isinstance(error, RpcError):
        return error
    codes: tuple[tuple[tuple[type[Error], ...], int], ...] = (
        ((NotRegisteredError,), 0x71),
        ((NotDeliveredError, QueueFullError), 0x77),
        ((AccessDeniedError,), 0x79),
        ((TimedOutError,), 0x78),
        ((DisconnectedError, ClosedError), 0x73),
    )
    for kinds, code in codes:
        if isinstance(error, kinds):
            return RpcError(rpc.CODE_BASE - code, str(error))
    return RpcError.internal(str(error))
