"""Frames from client to broker, sections 2 and 3. Owns their encoding; never decides when to send."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Union

from elbus_client.errors import ArgumentError, NameRefusedError, UnsendableError
from elbus_client.wire.constants import GREETING, MAX_NAME_BYTES, Qos

#: What can be sent: bytes, or text as UTF-8.
Payload = Union[bytes, bytearray, memoryview, str]

_HEADER = struct.Struct("<IBI")
#: Packs op id, flags and length of the body.
pack_header = _HEADER.pack
HEADER_BYTES = _HEADER.size
MAX_BODY_BYTES = 0xFFFFFFFF


def flags_of(op: int) -> dict[int, int]:
    """Returns the flags of an operation for each QoS."""
    return {qos: op | qos << 6 for qos in Qos}


def encode_text(text: object, field: str) -> bytes:
    """Returns a text with its NUL; raises if it cannot be sent."""
    if type(text) is not str and not isinstance(text, str):
        raise ArgumentError(f"the {field} must be a str, not {type(text).__name__}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise UnsendableError(f"the {field} {text!r} is not valid Unicode (a lone surrogate)") from None
    if b"\0" in encoded:
        raise UnsendableError(f"the {field} {text!r} contains a NUL")
    return encoded + b"\0"


def encode_payload(payload: object) -> bytes:
    """Returns a payload as bytes; raises if it has another type."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError:
            raise UnsendableError("the payload is not valid Unicode (a lone surrogate)") from None
    if isinstance(payload, bytearray):
        return bytes(payload)
    if isinstance(payload, memoryview):
        return payload.tobytes()
    raise ArgumentError(
        f"the payload must be bytes or str, not {type(payload).__name__}: encode it first, "
        "for example with json.dumps or msgpack.packb"
    )


def encode_filters(filters: Iterable[str]) -> bytes:
    """Returns the body of a topic operation."""
    return b"\0".join(encode_text(filter, "filter")[:-1] for filter in filters)


def encode_hello(name: object) -> bytes:
    """Returns what a client sends in the handshake."""
    encoded = encode_text(name, "name")[:-1]
    if len(encoded) > MAX_NAME_BYTES:
        raise NameRefusedError(str(name), 0x72)
    return GREETING + struct.pack("<H", len(encoded)) + encoded


def filters_of(filters: object) -> list[str]:
    """Returns one or more filters as a list; raises if they are anything else."""
    if isinstance(filters, str):
        return [filters]
    if isinstance(filters, (bytes, bytearray)) or not isinstance(filters, Iterable):
        raise ArgumentError(f"filters must be a str or several of them, not {type(filters).__name__}")
    found: list[str] = []
    for filter in filters:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(filter, str):
            raise ArgumentError(f"a filter must be a str, not {type(filter).__name__}")  # pyright: ignore[reportUnknownArgumentType]
        found.append(filter)
    return found
