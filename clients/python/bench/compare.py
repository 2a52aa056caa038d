"""Compares the throughput of this client with busrt and busrt-async: paired rounds, interleaved.

    ELBUSD=target/release/elbusd python clients/python/bench/compare.py [--rounds N] [--messages N]

Messages of 100 bytes over a UNIX socket. *send*: one client sends without acknowledgement to a program that
reads everything, and waits for the acknowledgement of a last message. *receive*: a program that writes
prepared bytes floods the client, which counts. The same with uvloop is reported as well.
Processor time is that of the process of the client: on a busy machine it says more than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

HERE = pathlib.Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE.parents[1] / "tests")]

PAYLOAD = b"x" * 100


def raw_client(address: str, name: str) -> socket.socket:
    """Registers without a client library."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address)
    sock.sendall(b"\xeb\x01\x00" + struct.pack("<H", len(name)) + name.encode())
    received = b""
    while len(received) < 5:
        received += sock.recv(5 - len(received))
    assert received == b"\xeb\x01\x00\x01\x01", received
    return sock


def sink(address: str) -> None:
    """Reads everything that is sent to it."""
    sock = raw_client(address, "bench.sink")
    threading.Thread(target=ping, args=(sock,), daemon=True).start()
    print("ready", flush=True)
    buffer = bytearray(1 << 20)
    while sock.recv_into(buffer):
        pass


def ping(sock: socket.socket) -> None:
    """Keeps a connection alive."""
    while True:
        time.sleep(1)
        sock.sendall(bytes(9))


def flood(address: str, target: str, count: int) -> None:
    """Sends prepared messages."""
    sock = raw_client(address, f"bench.flood{os.getpid()}")
    body = target.encode() + b"\0" + PAYLOAD
    frame = struct.pack("<IBI", 0, 0x12, len(body)) + body
    for at in range(0, count, 500):
        sock.sendall(frame * min(500, count - at))
    # an acknowledgement proves that the broker has read everything
    sock.sendall(struct.pack("<IBI", 7, 0x45, 5) + b"probe")
    while b"\xfe\x07\x00\x00\x00\x01" not in sock.recv(1 << 16):
        pass


def start_flood(address: str, target: str, count: int) -> None:
    """Floods a client from another process."""
    subprocess.Popen([sys.executable, str(HERE), "flood", address, target, str(count)])


class Meter:
    """Counts received messages from the first to the last."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen = 0
        self.start = 0.0
        self.rate = 0.0

    def add(self) -> bool:
        """Counts a message. Returns whether it was the last one."""
        if not self.seen:
            self.start = time.perf_counter()
        self.seen += 1
        if self.seen < self.count:
            return False
        self.rate = self.count / (time.perf_counter() - self.start)
        return True


async def send_async(address: str, count: int) -> float:
    import elbus_client

    async with elbus_client.connect(address, "bench.a") as client:
        qos, start = elbus_client.Qos.NO, time.perf_counter()
        for _ in range(count):
            await client.send("bench.sink", PAYLOAD, qos)
        await client.send("bench.sink", PAYLOAD)
        return count / (time.perf_counter() - start)


async def receive_async(address: str, count: int) -> float:
    import elbus_client

    meter = Meter(count)
    async with elbus_client.connect(address, "bench.a") as client:
        start_flood(address, client.name, count)
        async for _ in client.frames:
            if meter.add():
                break
    return meter.rate


async def send_busrt_async(address: str, count: int) -> float:
    from busrt_async.client import Client, Frame  # type: ignore[import-untyped]

    client = Client(address, "bench.a")
    await client.connect()
    start = time.perf_counter()
    for _ in range(count):
        await client.send("bench.sink", Frame(PAYLOAD, 0x12, 0))
    await (await client.send("bench.sink", Frame(PAYLOAD, 0x12, 1))).wait_completed(60)
    rate = count / (time.perf_counter() - start)
    await client.disconnect()
    return rate


async def receive_busrt_async(address: str, count: int) -> float:
    from busrt_async.client import Client

    meter, done = Meter(count), asyncio.Event()

    async def on_frame(frame: object) -> None:
        if meter.add():
            done.set()

    client = Client(address, "bench.a")
    client.on_frame = on_frame
    await client.connect()
    start_flood(address, "bench.a", count)
    await done.wait()
    await client.disconnect()
    return meter.rate


def send_blocking(address: str, count: int) -> float:
    from elbus_client import Qos, blocking

    with blocking.connect(address, "bench.a") as client:
        qos, start = Qos.NO, time.perf_counter()
        for _ in range(count):
            client.send("bench.sink", PAYLOAD, qos)
        client.send("bench.sink", PAYLOAD)
        return count / (time.perf_counter() - start)


def receive_blocking(address: str, count: int) -> float:
    from elbus_client import blocking

    meter = Meter(count)
    with blocking.connect(address, "bench.a") as client:
        start_flood(address, client.name, count)
        for _ in client.frames:
            if meter.add():
                break
    return meter.rate


def send_busrt(address: str, count: int) -> float:
    from busrt.client import Client, Frame  # type: ignore[import-untyped]

    client = Client(address, "bench.a")
    client.connect()
    start = time.perf_counter()
    for _ in range(count):
        client.send("bench.sink", Frame(PAYLOAD, 0x12, 0))
    client.send("bench.sink", Frame(PAYLOAD, 0x12, 1)).wait_completed(60)
    rate = count / (time.perf_counter() - start)
    client.disconnect()
    return rate


def receive_busrt(address: str, count: int) -> float:
    from busrt.client import Client

    meter, done = Meter(count), threading.Event()

    def on_frame(frame: object) -> None:
        if meter.add():
            done.set()

    client = Client(address, "bench.a")
    client.on_frame = on_frame
    client.connect()
    start_flood(address, "bench.a", count)
    done.wait()
    client.disconnect()
    return meter.rate


def acknowledged(batch: int) -> Callable[[str, int], float]:
    """Returns a measurement of acknowledged messages, a number of them at a time."""

    async def measure(address: str, count: int) -> float:
        import elbus_client

        async with elbus_client.connect(address, "bench.a") as client:
            start = time.perf_counter()
            for _ in range(count // batch):
                await asyncio.gather(*[client.send("bench.sink", PAYLOAD) for _ in range(batch)])
            return count / (time.perf_counter() - start)

    return lambda address, count: asyncio.run(measure(address, count))


def calls(address: str, count: int) -> float:
    """Measures calls of a method of another client in the same process, one after another."""

    async def measure() -> float:
        import elbus_client

        service = elbus_client.Service()

        @service.method
        def add(a: int, b: int) -> int:
            return a + b

        async with (
            elbus_client.connect(address, "bench.a") as a,
            elbus_client.connect(address, "bench.b") as b,
            b.serve(service),
        ):
            start = time.perf_counter()
            for number in range(count):
                await a.call_as(int, "bench.b", "add", {"a": number, "b": 1})
            return count / (time.perf_counter() - start)

    return asyncio.run(measure())


MEASUREMENTS: dict[str, Callable[[str, int], float]] = {
    "send": lambda address, count: asyncio.run(send_async(address, count)),
    "receive": lambda address, count: asyncio.run(receive_async(address, count)),
    "send busrt-async": lambda address, count: asyncio.run(send_busrt_async(address, count)),
    "receive busrt-async": lambda address, count: asyncio.run(receive_busrt_async(address, count)),
    "send blocking": send_blocking,
    "receive blocking": receive_blocking,
    "send busrt": send_busrt,
    "receive busrt": receive_busrt,
    "acknowledged, one at a time": acknowledged(1),
    "acknowledged, 1000 at a time": acknowledged(1000),
    "calls, one at a time": calls,
}

#: What is compared: this client, the other one, and the goal.
PAIRS = [
    ("send", "send busrt-async", 3),
    ("receive", "receive busrt-async", 3),
    ("send blocking", "send busrt", 2),
    ("receive blocking", "receive busrt", 2),
]
#: What is measured alone, with the share of the messages.
ALONE = [
    ("acknowledged, one at a time", 0.05),
    ("acknowledged, 1000 at a time", 0.5),
    ("calls, one at a time", 0.02),
]


def measure(name: str, address: str, count: int, uvloop: bool = False) -> tuple[float, float]:
    """Runs a measurement in a process of its own. Returns messages per second and processor time of each,
    in us.
    """
    command = [
        sys.executable,
        str(HERE),
        "measure",
        name,
        address,
        str(count),
        *(["uvloop"] if uvloop else []),
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=300).stdout
    rate, cpu = output.split()[-2:]
    return float(rate), float(cpu)


def main() -> None:
    """Runs all rounds and prints the medians."""
    from broker import Broker

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200_000)
    arguments = parser.parse_args()
    count: int = arguments.messages
    broker = Broker()
    reader = subprocess.Popen([sys.executable, str(HERE), "sink", broker.socket], stdout=subprocess.PIPE)
    assert reader.stdout is not None and reader.stdout.readline() == b"ready\n"
    results: dict[str, list[tuple[float, float]]] = {}
    try:
        for _ in range(arguments.rounds):
            for ours, theirs, _ in PAIRS:
                results.setdefault(ours, []).append(measure(ours, broker.socket, count))
                results.setdefault(theirs, []).append(measure(theirs, broker.socket, count // 4))
                if "blocking" not in ours:
                    fast = measure(ours, broker.socket, count, uvloop=True)
                    results.setdefault(f"{ours}, uvloop", []).append(fast)
            for name, share in ALONE:
                for uvloop in (False, True):
                    rate = measure(name, broker.socket, int(count * share), uvloop)
                    results.setdefault(f"{name}{', uvloop' if uvloop else ''}", []).append(rate)
    finally:
        reader.kill()
        broker.close()
    for name, found in results.items():
        rates, costs = [rate for rate, _ in found], [cost for _, cost in found]
        print(
            f"{name:36} {statistics.median(rates):10,.0f}/s   {min(rates):10,.0f} to {max(rates):10,.0f}   "
            f"{statistics.median(costs):7.2f} us of processor time"
        )
    for ours, theirs, goal in PAIRS:
        pairs = list(zip(results[ours], results[theirs], strict=True))
        ratios = [mine[0] / other[0] for mine, other in pairs]
        costs = [other[1] / mine[1] for mine, other in pairs]
        print(
            f"{ours} / {theirs}: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), "
            f"by processor time {statistics.median(costs):.1f}, goal {goal}"
        )


if __name__ == "__main__":
    match sys.argv[1:2]:
        case ["sink"]:
            sink(sys.argv[2])
        case ["flood"]:
            flood(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        case ["measure"]:
            if sys.argv[-1] == "uvloop":
                import uvloop  # type: ignore[import-not-found,unused-ignore]

                uvloop.install()
            # to import is no part of it
            import busrt  # type: ignore[import-untyped]  # noqa: F401
            import busrt_async  # type: ignore[import-untyped]  # noqa: F401

            import elbus_client.blocking  # noqa: F401

            cpu, messages = time.process_time(), int(sys.argv[4])
            measured = MEASUREMENTS[sys.argv[2]](sys.argv[3], messages)
            print(measured, (time.process_time() - cpu) / messages * 1e6)
        case _:
            main()
