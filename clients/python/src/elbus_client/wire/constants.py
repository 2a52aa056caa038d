"""Constants of the protocol, section 1. Owns the numbers only."""

from __future__ import annotations

import enum
from typing import Final

VERSION: Final = 1
GREETING: Final = b"\xeb\x01\x00"
PING: Final = bytes(9)

PUBLISH: Final = 0x01
SUBSCRIBE: Final = 0x02
UNSUBSCRIBE: Final = 0x03
EXCLUDE: Final = 0x04
UNEXCLUDE: Final = 0x05
PUBLISH_FOR: Final = 0x06
MESSAGE: Final = 0x12
BROADCAST: Final = 0x13
NOP: Final = 0x00
ACK: Final = 0xFE

#: The bit of the flags that requests an acknowledgement.
WANTS_ACK: Final = 0x40
#: The bit of the flags for immediate flushing.
REALTIME: Final = 0x80

#: What operations are called in errors; a verb that precedes the target.
OPERATIONS: Final = {
    PUBLISH: "publish to",
    SUBSCRIBE: "subscribe to",
    UNSUBSCRIBE: "unsubscribe from",
    EXCLUDE: "exclude",
    UNEXCLUDE: "unexclude",
    PUBLISH_FOR: "publish to",
    MESSAGE: "send to",
    BROADCAST: "broadcast to",
}

#: The name of the broker itself.
BROKER: Final = ".broker"
#: The topic of reports about publications that the broker has dropped for a client.
MISSED_TOPIC: Final = ".broker/missed"
#: The topic that the broker subscribes every client to.
WARNINGS_TOPIC: Final = ".broker/warn"
#: A filter that nobody uses: to unexclude it changes nothing and is acknowledged.
PROBE_FILTER: Final = ".client/probe"
#: Between the name of a primary client and the suffix of a secondary one.
SECONDARY_SEPARATOR: Final = "%%"
MAX_NAME_BYTES: Final = 0xFFFF


class Qos(enum.IntEnum):
    """The quality of service of an operation: whether the broker acknowledges it, and whether it is
    real-time.
    """

    #: No acknowledgement: the operation completes when its frame is queued here.
    NO = 0
    #: The operation completes with the broker's acknowledgement, or fails with its code.
    PROCESSED = 1
    #: No acknowledgement, flushed at once by the broker.
    REALTIME = 2
    #: Acknowledged and flushed at once by the broker.
    REALTIME_PROCESSED = 3

    # as an int: the hash of Enum is computed in Python
    __hash__ = int.__hash__
