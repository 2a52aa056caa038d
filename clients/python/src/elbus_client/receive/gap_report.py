"""Reports of the broker about publications that it has dropped for the client (protocol section 6). Owns
their form; the demux finds the queues that they concern.
"""

from __future__ import annotations

from elbus_client.frame import Frame
from elbus_client.wire.constants import BROKER
from elbus_client.wire.msgpack_map import decode_entries, decode_text, decode_unsigned

#: Limit of a report: a filter has at most 64 KiB, the topic 1 KiB.
MAX_REPORT_BYTES = 128 * 1024


def gap_report(frame: Frame) -> tuple[str, int] | None:
    """Returns the filter with its options, as the broker knows it, and how many publications it has missed
    since the last report; ``None`` if the frame is not a report of the broker.
    """
    if frame.sender != BROKER or len(frame.payload) > MAX_REPORT_BYTES:
        return None
    try:
        entries = decode_entries(frame.payload)
    except ValueError:
        return None
    filter = decode_text(entries.get("filter", b""))
    count = decode_unsigned(entries.get("count", b""))
    return None if filter is None or count is None else (filter, count)
