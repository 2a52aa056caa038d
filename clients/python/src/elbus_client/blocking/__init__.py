"""The client without asyncio: the same names, each call blocks until it is done.

    with elbus_client.blocking.connect("/tmp/elbus.sock", "plant.display") as display:
        for frame in display.subscribe("temperature/+"):
            print(frame.topic, frame.payload)

All clients of a process share one background thread, which reads, writes and reconnects. They can be used
from any number of threads. After a fork they belong to the parent process; the child connects its own.
"""

from elbus_client.blocking.client import Client, connect
from elbus_client.blocking.consumers import Cursor, Events, Frames, Subscription
from elbus_client.blocking.serving import Serving

__all__ = ["Client", "Cursor", "Events", "Frames", "Serving", "Subscription", "connect"]
