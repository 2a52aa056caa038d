"""The client of the ELBUS message broker, and of any broker that speaks its protocol.

A client registers under a name and sends, broadcasts, publishes, subscribes and calls, over a UNIX socket,
over TCP, or under TLS. This module is its asyncio face; ``elbus_client.blocking`` has the same names without
asyncio.

    async with elbus_client.connect("/tmp/elbus.sock", "plant.display") as display:
        async for frame in display.subscribe("temperature/+"):
            print(frame.topic, frame.payload)

What this module and ``elbus_client.blocking`` export is the public interface; everything else is internal.
"""

from elbus_client.address import Address
from elbus_client.api.client import Client, ClientStats, connect
from elbus_client.api.consumers import Frames, Subscription
from elbus_client.errors import (
    AccessDeniedError,
    AlreadyServingError,
    ArgumentError,
    BadAddressError,
    ClosedError,
    ConversionError,
    DisconnectedError,
    Error,
    FrameTooLongError,
    MissingPackageError,
    NameRefusedError,
    NameTakenError,
    NoBrokerError,
    NoPrimaryError,
    NotABrokerError,
    NotDeliveredError,
    NotRegisteredError,
    NotSupportedError,
    QueueFullError,
    RefusedError,
    TimedOutError,
    TlsError,
    UnsendableError,
    WrongThreadError,
)
from elbus_client.events import (
    Closed,
    Connected,
    ConnectionEvent,
    ConnectionEvents,
    Disconnected,
    Missed,
    Retrying,
)
from elbus_client.frame import Frame, FrameKind
from elbus_client.rpc.cursor import Cursor
from elbus_client.rpc.errors import RpcError
from elbus_client.rpc.service import Call, Notification, Service
from elbus_client.rpc.serving import Handler, Serving
from elbus_client.settings import Backoff, Overflow
from elbus_client.wire.constants import Qos
from elbus_client.wire.requests import Payload
from elbus_client.wire.subscription import Options

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "Address",
    "AlreadyServingError",
    "ArgumentError",
    "Backoff",
    "BadAddressError",
    "Call",
    "Client",
    "ClientStats",
    "Closed",
    "ClosedError",
    "Connected",
    "ConnectionEvent",
    "ConnectionEvents",
    "ConversionError",
    "Cursor",
    "Disconnected",
    "DisconnectedError",
    "Error",
    "Frame",
    "FrameKind",
    "FrameTooLongError",
    "Frames",
    "Handler",
    "Missed",
    "MissingPackageError",
    "NameRefusedError",
    "NameTakenError",
    "NoBrokerError",
    "NoPrimaryError",
    "NotABrokerError",
    "NotDeliveredError",
    "NotRegisteredError",
    "NotSupportedError",
    "Notification",
    "Options",
    "Overflow",
    "Payload",
    "Qos",
    "QueueFullError",
    "RefusedError",
    "Retrying",
    "RpcError",
    "Service",
    "Serving",
    "Subscription",
    "TimedOutError",
    "TlsError",
    "UnsendableError",
    "WrongThreadError",
    "connect",
]
