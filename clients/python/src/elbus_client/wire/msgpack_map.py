"""The maps of msgpack that the broker sends to every client: features, reports. Owns their decoding, so that
options of subscriptions need no other package; never decodes nested values.
"""

from __future__ import annotations

#: Lengths of the msgpack types that have a fixed one, by their first byte.
_FIXED = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
#: Types with a length: the bytes of the length, and bytes behind it that it does not count.
_VARIABLE = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
_NESTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
#: Texts with a length, by their first byte: the bytes of the length.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
#: Unsigned integers, by their first byte: their bytes.
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
#: Maps with a length, by their first byte: the bytes of the length.
_MAPS = {0xDE: 2, 0xDF: 4}


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("truncated")
    return int.from_bytes(data[at : at + size], "big")


def _skip(data: bytes, at: int) -> int:
    """Returns the position behind a value, of any depth."""
    values = 1
    while values:
        values -= 1
        first = _number(data, at, 1)
        at += 1
        if first < 0x80 or first >= 0xE0:
            continue
        if first < 0xA0:
            values += (first & 0x0F) * (2 if first < 0x90 else 1)
        elif first < 0xC0:
            at += first & 0x1F
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _VARIABLE:
            size, more = _VARIABLE[first]
            at += size + more + _number(data, at, size)
        elif first in _NESTED:
            size, factor = _NESTED[first]
            values += factor * _number(data, at, size)
            at += size
        else:
            raise ValueError("not msgpack")
        if at > len(data):
            raise ValueError("truncated")
    return at


def decode_entries(data: bytes) -> dict[str, bytes]:
    """Returns the encoded value of each key of a map that is a text; raises :class:`ValueError` if the data
    does not begin with a map.
    """
    first = _number(data, 0, 1)
    if 0x80 <= first < 0x90:
        count, at = first & 0x0F, 1
    elif first in _MAPS:
        size = _MAPS[first]
        count, at = _number(data, 1, size), 1 + size
    else:
        raise ValueError("not a map")
    entries: dict[str, bytes] = {}
    for _ in range(count):
        behind = _skip(data, at)
        key = decode_text(data[at:behind])
        at = _skip(data, behind)
        if key is not None:
            entries[key] = data[behind:at]
    return entries


def decode_text(value: bytes) -> str | None:
    """Returns a text; ``None`` if the encoded value is something else."""
    if not value:
        return None
    if 0xA0 <= value[0] < 0xC0:
        raw = value[1:]
    elif value[0] in _TEXTS:
        raw = value[1 + _TEXTS[value[0]] :]
    else:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def decode_unsigned(value: bytes) -> int | None:
    """Returns an integer that is not negative; ``None`` if the encoded value is something else."""
    if not value:
        return None
    if value[0] < 0x80:
        return value[0]
    size = _UNSIGNED.get(value[0])
    return None if size is None else _number(value, 1, size)
