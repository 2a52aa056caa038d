"""Checks and converts decoded values by type hints. Owns the rules for each type; knows no msgpack."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import reprlib
import types
import typing
import uuid
import weakref
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from elbus_client.errors import ConversionError

Converter = Callable[[Any, str], Any]


def _describe(value: object) -> str:
    # values come from a peer: the work is bounded, whatever their size
    if isinstance(value, (bytes, bytearray)):
        text = repr(bytes(value[:40]))
    else:
        text = reprlib.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '...'}"


def _wrong(path: str, expected: str, value: object) -> ConversionError:
    return ConversionError(f"{path}: expected {expected}, got {_describe(value)}")


def convert(value: object, hint: Any, path: str) -> Any:
    """Returns the value as the type says; raises :class:`ConversionError` that names the path and the
    types.
    """
    try:
        return converter(hint)(value, path)
    except RecursionError:
        raise ConversionError(f"{path}: nested too deeply") from None


def converter(hint: Any) -> Converter:
    """Returns the converter of a type hint."""
    try:
        return _cached(hint)
    except TypeError:
        return _make(hint)  # not hashable


@functools.lru_cache(maxsize=1024)
def _cached(hint: Any) -> Converter:
    return _make(hint)


def hint_name(hint: Any) -> str:
    """Returns a type as it is written."""
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )


def _make(hint: Any) -> Converter:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return lambda value, path: value
    if hint is None or hint is type(None):
        return _none
    if origin is typing.Annotated:
        return converter(args[0])
    if origin is Union or origin is types.UnionType:
        return _union(args)
    if origin is typing.Literal:
        return _literal(args)
    if isinstance(hint, typing.NewType):
        return converter(hint.__supertype__)
    if origin in (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable):
        return _sequence(origin, args)
    if hint in (list, set, frozenset):
        return _sequence(hint, ())
    if hint is tuple or origin is tuple:
        return _tuple(args)
    if hint is dict or origin in (dict, collections.abc.Mapping):
        return _mapping(args)
    if isinstance(hint, type):
        return _of_class(hint)
    raise ConversionError(f"the type {hint_name(hint)} is not supported for parameters and results")


def _of_class(kind: type[Any]) -> Converter:
    if typing.is_typeddict(kind):
        return _typed_dict(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    if enum.Enum in kind.__mro__:
        return _enum(kind)
    if tuple in kind.__mro__ and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    if kind is uuid.UUID:
        return _uuid
    if kind is float:
        return _float
    if kind is int:
        return _int
    if kind is bytes:
        return _bytes
    if kind in (bool, str):
        return _exactly(kind)
    raise ConversionError(f"the type {kind.__name__} is not supported for parameters and results")


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _none(value: Any, path: str) -> None:
    if value is not None:
        raise _wrong(path, "None", value)


def _int(value: Any, path: str) -> int:
    if type(value) is not int:
        raise _wrong(path, "int", value)
    return value


def _float(value: Any, path: str) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise _wrong(path, "float", value)
    return float(value)


def _bytes(value: Any, path: str) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise _wrong(path, "bytes", value)


def _uuid(value: Any, path: str) -> uuid.UUID:
    try:
        if isinstance(value, bytes):
            return uuid.UUID(bytes=value)
        if isinstance(value, str):
            return uuid.UUID(value)
    except ValueError:
        pass
    raise _wrong(path, "a UUID as 16 bytes or text", value)


def _exactly(kind: type[Any]) -> Converter:
    def check(value: Any, path: str) -> Any:
        if type(value) is not kind:
            raise _wrong(path, kind.__name__, value)
        return value

    return check


def _union(args: tuple[Any, ...]) -> Converter:
    others = [arg for arg in args if arg is not type(None)]
    if len(others) == 1:
        # the error is that of the only type
        return lambda value, path: None if value is None else converter(others[0])(value, path)

    def check(value: Any, path: str) -> Any:
        # the exact type first, so that Union[float, int] leaves an int alone
        for arg in args:
            if type(value) is arg:
                return value
        for arg in args:
            try:
                return converter(arg)(value, path)
            except ConversionError:
                continue
        raise _wrong(path, " or ".join(hint_name(arg) for arg in args), value)

    return check


def _literal(args: tuple[Any, ...]) -> Converter:
    def check(value: Any, path: str) -> Any:
        for arg in args:
            if arg == value and type(arg) is type(value):
                return arg
        raise _wrong(path, " or ".join(map(repr, args)), value)

    return check


def _sequence(kind: Any, args: tuple[Any, ...]) -> Converter:
    build: Callable[[Any], Any] = kind
    if kind not in (set, frozenset):
        build = list

    def check(value: Any, path: str) -> Any:
        if not _is_list(value):
            raise _wrong(path, "a list", value)
        items: list[Any] = value
        if args:
            item = converter(args[0])
            items = [item(entry, f"{path}[{index}]") for index, entry in enumerate(items)]
        try:
            return build(items)
        except TypeError as error:
            raise ConversionError(f"{path}: {error}") from None

    return check


def _tuple(args: tuple[Any, ...]) -> Converter:
    def check(value: Any, path: str) -> Any:
        if not _is_list(value):
            raise _wrong(path, "a list", value)
        items: list[Any] = value
        if not args:
            return tuple(items)
        if len(args) == 2 and args[1] is ...:
            each = converter(args[0])
            return tuple(each(entry, f"{path}[{index}]") for index, entry in enumerate(items))
        if len(items) != len(args):
            raise _wrong(path, f"{len(args)} items", value)
        return tuple(
            converter(arg)(entry, f"{path}[{index}]")
            for index, (arg, entry) in enumerate(zip(args, items, strict=True))
        )

    return check


def _mapping(args: tuple[Any, ...]) -> Converter:
    def check(value: Any, path: str) -> Any:
        if not _is_map(value):
            raise _wrong(path, "a map", value)
        entries: dict[Any, Any] = value
        if not args:
            return entries
        key, item = converter(args[0]), converter(args[1])
        return {key(k, f"a key of {path}"): item(v, f"{path}[{k!r}]") for k, v in entries.items()}

    return check


_known_hints: weakref.WeakKeyDictionary[type[Any], dict[str, Any]] = weakref.WeakKeyDictionary()


def _hints(kind: type[Any]) -> dict[str, Any]:
    found = _known_hints.get(kind)
    if found is not None:
        return found
    try:
        found = _known_hints[kind] = typing.get_type_hints(kind)
        return found
    except (NameError, TypeError) as error:
        raise ConversionError(f"the type hints of {kind.__name__} cannot be resolved: {error}") from None


def _dataclass(kind: type[Any]) -> Converter:
    fields = [field for field in dataclasses.fields(kind) if field.init]

    def check(value: Any, path: str) -> Any:
        if not _is_map(value):
            raise _wrong(path, f"a map for {kind.__name__}", value)
        entries: dict[Any, Any] = value
        hints = _hints(kind)
        found: dict[str, Any] = {}
        for field in fields:
            if field.name in entries:
                found[field.name] = converter(hints[field.name])(entries[field.name], f"{path}.{field.name}")
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ConversionError(f"{path}.{field.name} is missing")
        try:
            return kind(**found)
        except (TypeError, ValueError) as error:
            raise ConversionError(f"{path}: {error}") from error

    return check


def _typed_dict(kind: type[Any]) -> Converter:
    required: frozenset[str] = kind.__required_keys__

    def check(value: Any, path: str) -> Any:
        if not _is_map(value):
            raise _wrong(path, f"a map for {kind.__name__}", value)
        entries: dict[Any, Any] = value
        found: dict[str, Any] = {}
        for name, hint in _hints(kind).items():
            if name in entries:
                found[name] = converter(hint)(entries[name], f"{path}.{name}")
            elif name in required:
                raise ConversionError(f"{path}.{name} is missing")
        return found

    return check


def _named_tuple(kind: type[Any]) -> Converter:
    def check(value: Any, path: str) -> Any:
        hints = _hints(kind)
        names: tuple[str, ...] = kind._fields
        if _is_map(value):
            items: list[Any] = [value[name] for name in names if name in value]
        elif _is_list(value):
            items = list(value)
        else:
            raise _wrong(path, f"a list for {kind.__name__}", value)
        if len(items) != len(names):
            raise _wrong(path, f"{len(names)} items for {kind.__name__}", value)
        return kind(
            *(
                converter(hints.get(name, Any))(item, f"{path}.{name}")
                for name, item in zip(names, items, strict=True)
            )
        )

    return check


def _enum(kind: Any) -> Converter:
    def check(value: Any, path: str) -> Any:
        try:
            return kind(value)
        except (ValueError, TypeError):
            allowed = " or ".join(repr(member.value) for member in kind)
            raise _wrong(path, allowed, value) from None

    return check
