"""Reads the conformance data of protocol/conformance. Owns its syntax; runs nothing."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass, field

FOLDER = pathlib.Path(__file__).parents[3] / "protocol" / "conformance"

_TOKEN = re.compile(
    r'"(?P<text>[^"]*)"|(?P<count>\d+)\*\(|(?P<len>len16|len32)\(|(?P<close>\))|(?P<comma>,)|(?P<word>[^\s,()"]+)'
)
_NUMBERS = {"u16": (2, False), "u32": (4, False), "i16": (2, True)}


@dataclass
class Id:
    """Four bytes that the client chooses; ``name`` is ``?`` if any four bytes will do."""

    name: str


Pieces = "list[bytes | Id]"


def tokens(line: str) -> list[re.Match[str]]:
    """Splits a line into tokens."""
    found = list(_TOKEN.finditer(line))
    covered = "".join(match.group(0) for match in found)
    assert covered.replace(" ", "") == re.sub(r"\s", "", line), f"cannot read {line!r}"
    return found


def read_bytes(items: list[re.Match[str]], at: int = 0, nested: bool = False) -> tuple[list[bytes | Id], int]:
    """Reads BYTES until a comma or the end. Returns pieces and the position behind them."""
    pieces: list[bytes | Id] = []
    while at < len(items):
        match = items[at]
        if match["close"]:
            assert nested, "a parenthesis too many"
            return pieces, at + 1
        if match["comma"]:
            break
        at += 1
        if match["text"] is not None:
            pieces.append(match["text"].encode())
        elif match["count"]:
            inner, at = read_bytes(items, at, nested=True)
            pieces.append(int(match["count"]) * flat(inner))
        elif match["len"]:
            inner, at = read_bytes(items, at, nested=True)
            length = sum(4 if isinstance(piece, Id) else len(piece) for piece in inner)
            pieces.append(length.to_bytes(2 if match["len"] == "len16" else 4, "little"))
            pieces.extend(inner)
        else:
            word = match["word"]
            kind, _, rest = word.partition("=")
            if kind in _NUMBERS and rest:
                size, signed = _NUMBERS[kind]
                pieces.append(int(rest).to_bytes(size, "little", signed=signed))
            elif word.startswith("id:"):
                pieces.append(Id(word[3:]))
            else:
                pieces.append(bytes.fromhex(word))
    assert not nested, "a parenthesis is missing"
    return pieces, at


def flat(pieces: list[bytes | Id]) -> bytes:
    """Joins pieces without ids."""
    assert not any(isinstance(piece, Id) for piece in pieces)
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def constant(text: str) -> bytes:
    """Returns the bytes of a text without ids."""
    pieces, _ = read_bytes(tokens(text))
    return flat(pieces)


def lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """Returns the lines that are neither empty nor comments, with their numbers."""
    numbered = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    stripped = ((number, line.strip()) for number, line in numbered)
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


@dataclass
class Case:
    """A case of a frame file."""

    name: str
    limit: int = 65536
    input: bytes = b""
    items: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [])
    outcome: str = ""


def read_fields(text: str) -> dict[str, bytes]:
    """Reads ``KEY BYTES, KEY BYTES``."""
    items = tokens(text)
    fields: dict[str, bytes] = {}
    at = 0
    while at < len(items):
        key = items[at]["word"]
        pieces, at = read_bytes(items, at + 1)
        fields[key] = flat(pieces)
        at += 1
    return fields


def cases(name: str) -> list[Case]:
    """Returns the cases of a file."""
    found: list[Case] = []
    for _, line in lines(FOLDER / name):
        first, _, rest = line.partition(" ")
        if first == "case":
            found.append(Case(rest))
        elif first == "limit":
            found[-1].limit = int(rest)
        elif first == "in":
            found[-1].input += constant(rest)
        elif first == ">":
            kind, _, fields = rest.partition(" ")
            found[-1].items.append((kind, read_fields(fields)))
        elif first == "=":
            found[-1].outcome = rest
        else:
            raise AssertionError(f"unknown line {line!r}")
    return found


@dataclass
class Conversation:
    """A conversation: numbered lines of a file."""

    file: str
    name: str
    lines: list[tuple[int, str]] = field(default_factory=lambda: [])


def conversations() -> list[Conversation]:
    """Returns all conversations."""
    found: list[Conversation] = []
    for path in sorted((FOLDER / "conversations").glob("*.txt")):
        for number, line in lines(path):
            first, _, rest = line.partition(" ")
            if first == "conversation":
                found.append(Conversation(path.name, rest))
            else:
                found[-1].lines.append((number, line))
    assert found
    return found
