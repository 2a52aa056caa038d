"""Values to and from msgpack, with the optional package msgpack. Owns the mapping of Python types."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Mapping
from typing import Any, cast

from elbus_client.errors import ConversionError, MissingPackageError

try:
    import msgpack  # type: ignore[import-untyped,unused-ignore]
except ImportError:  # pragma: no cover - a test removes the package
    msgpack = None


def _package(what: str) -> Any:
    if msgpack is None:
        raise MissingPackageError(what)
    return msgpack


def _default(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, (set, frozenset)):
        return list(cast("set[object]", value))
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    raise TypeError(f"{type(value).__name__} has no msgpack form")


def encode(value: object, what: str) -> bytes:
    """Returns a value as msgpack: dataclasses become maps with the names of their fields, enums their values,
    UUIDs their 16 bytes, sets and tuples arrays. Raises :class:`ConversionError`.
    """
    package = _package(what)
    try:
        packed: bytes = package.packb(value, default=_default, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConversionError(f"{what} cannot be converted to msgpack: {error}") from error
    return packed


def decode(data: bytes, what: str) -> Any:
    """Returns the value of msgpack bytes. Raises :class:`ConversionError`."""
    package = _package(what)
    try:
        return package.unpackb(data, raw=False, strict_map_key=False)
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ConversionError(f"{what} is not msgpack: {error or type(error).__name__}") from error
