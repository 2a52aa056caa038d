"""Conversion by type hints: what is accepted, what is refused and with which words."""

# ruff: noqa: UP045
from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict, Union

import pytest

import elbus_client as elbus
from elbus_client.rpc import msgpack
from elbus_client.rpc.convert import convert
from elbus_client.rpc.features import decode_features

ID = uuid.uuid4()
Celsius = NewType("Celsius", float)


class Mode(enum.Enum):
    ON = "on"
    OFF = "off"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=lambda: [])
    next: Optional[Point] = None


class Options(TypedDict, total=False):
    depth: int


class Pair(NamedTuple):
    a: int
    b: str


ACCEPTED: list[tuple[Any, Any, Any]] = [
    (int, 5, 5),
    (float, 5, 5.0),
    (float, 1.5, 1.5),
    (bool, True, True),
    (str, "é", "é"),
    (bytes, b"x", b"x"),
    (None, None, None),
    (Any, [1], [1]),
    (object, {"a": 1}, {"a": 1}),
    (list[int], [1, 2], [1, 2]),
    (list, [1], [1]),
    (Sequence[int], [1], [1]),
    (set[int], [1, 1], {1}),
    (frozenset[str], ["a"], frozenset("a")),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (Mapping[int, bool], {1: True}, {1: True}),
    (Optional[int], None, None),
    (Optional[int], 5, 5),
    (Union[float, int], 5, 5),
    (Union[int, str], "a", "a"),
    (int | None, 7, 7),
    (Literal["a", 1], 1, 1),
    (Mode, "on", Mode.ON),
    (Level, 1, Level.LOW),
    (uuid.UUID, ID.bytes, ID),
    (uuid.UUID, str(ID), ID),
    (Point, {"x": 1, "unknown": 2}, Point(1)),
    (Point, {"x": 1, "next": {"x": 2, "tags": ["t"]}}, Point(1, next=Point(2, 0, ["t"]))),
    (Options, {}, {}),
    (Options, {"depth": 1, "other": 2}, {"depth": 1}),
    (Pair, [1, "b"], Pair(1, "b")),
    (Pair, {"a": 1, "b": "b"}, Pair(1, "b")),
    (Annotated[int, "unit"], 5, 5),
    (Celsius, 5, 5.0),
]

REFUSED: list[tuple[Any, Any, str]] = [
    (int, True, "v: expected int, got bool True"),
    (int, 1.0, "expected int, got float"),
    (int, "5", "expected int, got str '5'"),
    (bool, 1, "expected bool, got int"),
    (str, b"x", "expected str, got bytes"),
    (bytes, "x", "expected bytes, got str"),
    (float, "x", "expected float"),
    (None, 0, "expected None"),
    (list[int], [1, "a"], r"v\[1\]: expected int"),
    (list[int], "ab", "expected a list"),
    (dict[str, int], [1], "expected a map"),
    (dict[str, int], {1: 1}, "a key of v: expected str"),
    (tuple[int, str], [1], "expected 2 items"),
    (Mode, "x", "expected 'on' or 'off', got str 'x'"),
    (Literal["a"], "b", "expected 'a'"),
    (Literal[1], True, "expected 1"),
    (Optional[int], "x", "expected int, got str"),
    (uuid.UUID, b"x", "16 bytes"),
    (Point, {}, "v.x is missing"),
    (Point, {"x": 1, "next": {"x": "1"}}, "v.next.x: expected int"),
    (Point, 5, "expected a map for Point"),
    (Pair, [1], "expected 2 items for Pair"),
    (set[Any], [[1]], "unhashable"),
    (int, b"\0" * 10_000_000, "got bytes"),
    (int, ["x" * 10_000] * 1000, "got list"),
    (complex, 1, "is not supported"),
    (type(print), 1, "is not supported"),
]


@pytest.mark.parametrize(("hint", "value", "expected"), ACCEPTED, ids=str)
def test_accepted(hint: Any, value: Any, expected: Any) -> None:
    converted = convert(value, hint, "v")
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(("hint", "value", "text"), REFUSED, ids=lambda value: str(value)[:30])
def test_refused(hint: Any, value: Any, text: str) -> None:
    with pytest.raises(elbus.ConversionError, match=text) as raised:
        convert(value, hint, "v")
    assert len(str(raised.value)) < 300


def test_values_become_msgpack_and_return() -> None:
    for value, decoded in [
        (Point(1, 2, ["a"]), {"x": 1, "y": 2, "tags": ["a"], "next": None}),
        ([Mode.ON, Level.LOW], ["on", 1]),
        (ID, ID.bytes),
        ({1, 2}, [1, 2]),
        ((1, 2), [1, 2]),
        (Pair(1, "b"), [1, "b"]),
        ({"a": b"x", 1: None}, {"a": b"x", 1: None}),
    ]:
        assert msgpack.decode(msgpack.encode(value, "v"), "v") == decoded
    for wrong in (object(), 1 << 64, "\ud800", print, {(1, 2): object}):
        with pytest.raises(elbus.ConversionError, match="v cannot be converted to msgpack"):
            msgpack.encode(wrong, "v")
    for data in (
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\xa2\xff\xfe",
        b"\x01\x02",
        b"\x81\x80\x01",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
    ):
        with pytest.raises(elbus.ConversionError, match="v is not msgpack"):
            msgpack.decode(data, "v")


def test_features_are_decoded_without_a_package() -> None:
    import msgpack as package

    nested = {
        "share": True,
        "x": [1, {"a": [b"x" * 300, None, 1.5, -1, "é" * 40]}],
        "lossy": False,
        "latest": True,
    }
    assert decode_features(package.packb(nested)) == {"share", "latest"}
    many = {f"option{number}": True for number in range(20)}
    assert decode_features(package.packb(many)) == set(many)
    whole = package.packb(nested)
    for at in range(len(whole)):
        assert decode_features(whole[:at]) == frozenset()
    for hostile in (
        b"",
        b"\xc0",
        b"\x81",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xdd\xff\xff\xff\xff",
        b"\x8f" * 100_000,
        b"\x81\xc6\xff\xff\xff\xff",
    ):
        assert decode_features(hostile) == frozenset()


@dataclass
class Tree:
    """A type that contains itself."""

    children: list[Tree]


def test_a_value_that_is_nested_too_deeply_is_an_error_of_conversion() -> None:
    value: dict[str, Any] = {"children": []}
    for _ in range(10_000):
        value = {"children": [value]}
    with pytest.raises(elbus.ConversionError, match="the result: nested too deeply"):
        convert(value, Tree, "the result")
