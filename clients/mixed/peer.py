"""The Python client in the test of all clients together: ``peer.py ADDRESS NAME``. Has the methods that
README.md lists.
"""

import asyncio
import sys

import elbus_client
from elbus_client import Options, Service


async def run(address: str, name: str) -> None:
    async with elbus_client.connect(address, name) as client:
        service, numbers = Service(), list[str]()
        tasks = set[asyncio.Task[None]]()

        @service.method
        async def double(value: int) -> int:
            return 2 * value

        @service.method
        async def relay(target: str, value: int) -> int:
            return await client.call_as(int, target, "double", value)

        @service.method
        async def publish(count: int) -> int:
            for job in range(count):
                await client.publish(f"jobs/{job % 7}", str(job))
            return count

        async def take(jobs: elbus_client.Subscription) -> None:
            async for job in jobs:
                numbers.append(job.payload.decode())

        @service.method
        async def work(group: str) -> None:
            jobs = await client.subscribe("jobs/#", options=Options(share=group))
            tasks.add(asyncio.create_task(take(jobs)))

        @service.method
        async def taken() -> list[str]:
            return numbers

        client.serve(service)
        print("ready", flush=True)
        async for _ in client.events():
            pass


asyncio.run(run(sys.argv[1], sys.argv[2]))
