"""A program that uses an installed package: the asyncio face, the blocking face, a call. Starts its own
broker.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from broker import Broker

import elbus_client
import elbus_client.blocking


async def main(address: str) -> None:
    """Publishes, subscribes and calls."""
    service = elbus_client.Service()

    @service.method
    async def double(number: int) -> int:
        return 2 * number

    async with elbus_client.connect(address, "smoke.a") as a, elbus_client.connect(address, "smoke.b") as b:
        async with b.subscribe("smoke/+") as subscription, b.serve(service):
            await a.publish("smoke/t", "71.5")
            frame = await subscription.next()
            assert frame is not None and frame.payload == b"71.5"
            assert await a.call_as(int, "smoke.b", "double", 21) == 42


if __name__ == "__main__":
    assert "site-packages" in elbus_client.__file__, elbus_client.__file__
    broker = Broker()
    try:
        asyncio.run(main(broker.socket))
        with elbus_client.blocking.connect(broker.socket, "smoke.c") as client:
            client.send("smoke.c", "hi")
            assert next(client.frames).payload == b"hi"
    finally:
        broker.close()
    print(f"installed package works: {elbus_client.__version__}")
