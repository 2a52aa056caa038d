"""RPC in the payload of a message, section 7. Owns its encoding; never sends."""

from __future__ import annotations

import struct
from typing import Final

NOTIFICATION: Final = 0x00
REQUEST: Final = 0x01
REPLY: Final = 0x11
ERROR: Final = 0x12
#: The call id of a request without a reply.
NO_REPLY: Final = 0

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
NOT_FOUND: Final = -32001
#: The RPC code of a result code of section 1 is this minus the code.
CODE_BASE: Final = -32000

_HEAD: Final = struct.Struct("<BI")
_ERROR_HEAD: Final = struct.Struct("<BIh")


def encode_request_head(call_id: int, method: bytes) -> bytes:
    """Returns the beginning of a request; ``method`` ends with its NUL."""
    return _HEAD.pack(REQUEST, call_id) + method


def encode_reply_head(call_id: int) -> bytes:
    """Returns the beginning of a reply."""
    return _HEAD.pack(REPLY, call_id)


def encode_error_head(call_id: int, code: int) -> bytes:
    """Returns the beginning of an error reply."""
    return _ERROR_HEAD.pack(ERROR, call_id, max(-32768, min(32767, code)))


def decode_reply(payload: bytes) -> tuple[int, bytes] | None:
    """Returns call id and result of a reply; ``None`` if it is truncated."""
    if len(payload) < 5:
        return None
    return int.from_bytes(payload[1:5], "little"), payload[5:]


def decode_error(payload: bytes) -> tuple[int, int, bytes] | None:
    """Returns call id, code and data of an error reply; ``None`` if it is truncated."""
    if len(payload) < 7:
        return None
    _, call_id, code = _ERROR_HEAD.unpack_from(payload)
    return call_id, code, payload[7:]


def decode_request(payload: bytes) -> tuple[int, bytes, bytes] | None:
    """Returns call id, method and parameters of a request; ``None`` if it is truncated."""
    if len(payload) < 6:
        return None
    method, nul, params = payload[5:].partition(b"\0")
    if not nul:
        return None
    return int.from_bytes(payload[1:5], "little"), method, params
