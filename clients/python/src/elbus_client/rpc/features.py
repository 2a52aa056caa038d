"""The answer of the broker's method ``features``: a map from text to bool. Never asks the broker."""

from __future__ import annotations

from elbus_client.wire.msgpack_map import decode_entries


def decode_features(data: bytes) -> frozenset[str]:
    """Returns the keys whose value is true; none if the answer is anything but a map."""
    try:
        return frozenset(key for key, value in decode_entries(data).items() if value == b"\xc3")
    except ValueError:
        return frozenset()
