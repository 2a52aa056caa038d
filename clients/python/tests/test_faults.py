"""Attacks: brokers that are killed under load, cancellation at every await, floods, forks, threads,
hostile bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from broker import ROOT, Broker
from fake_broker import peer, register, until_closed
from support import DEADLINE, eventually, run, run_within, soon

import elbus_client as elbus
from elbus_client import Backoff, Options, Overflow, Qos, blocking


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


KILLS = 100


@pytest.mark.timeout(1000)
@run_within(900)
async def test_a_broker_that_is_killed_again_and_again(prefix: str) -> None:
    """What was acknowledged as delivered to a connected receiver has arrived, or its loss was reported."""
    broker = Broker()
    backoff = Backoff(first_delay=0.005, max_delay=0.02)
    settings: dict[str, Any] = {"reconnect": backoff, "timeout": 2.0}
    try:
        async with (
            elbus.connect(broker.socket, f"{prefix}.sender", **settings) as sender,
            elbus.connect(broker.socket, f"{prefix}.receiver", **settings) as receiver,
        ):
            service = elbus.Service()

            @service.method
            def double(number: int) -> int:
                return 2 * number

            serving = receiver.serve(service)
            subscription = await receiver.subscribe(f"{prefix}/#")
            events = receiver.events()
            got: set[int] = set()
            stop = asyncio.Event()
            acknowledged: dict[int, int] = {}
            numbers = iter(range(10**9))
            outcomes = {"ok": 0, "error": 0, "calls": 0}
            generation = [0]

            async def receive() -> None:
                async for frame in subscription:
                    got.add(int(frame.payload))

            async def publish() -> None:
                while not stop.is_set():
                    number, started = next(numbers), generation[0]
                    try:
                        await sender.send(receiver.name, str(number))
                        acknowledged[number] = started
                        outcomes["ok"] += 1
                    except elbus.Error:
                        outcomes["error"] += 1
                        await asyncio.sleep(0.001)

            async def call() -> None:
                while not stop.is_set():
                    try:
                        number = next(numbers)
                        assert (
                            await sender.call_as(int, receiver.name, "double", {"number": number})
                            == 2 * number
                        )
                        outcomes["calls"] += 1
                    except elbus.Error:
                        await asyncio.sleep(0.001)

            async def receive_messages() -> None:
                async for frame in receiver.frames:
                    got.add(int(frame.payload))

            workers = [
                asyncio.create_task(work())
                for work in (receive, receive_messages, publish, publish, call, call)
            ]
            for round in range(KILLS):
                await sender.connected()
                await receiver.connected()
                before = outcomes["ok"]
                await eventually(lambda before=before: outcomes["ok"] > before + 20, "traffic")  # type: ignore[misc]
                broker.kill()
                generation[0] += 1
                broker.start()
                if round == 9:
                    gc.collect()
                    open_before, tasks_before = descriptors(), len(asyncio.all_tasks())
                    objects_before = len(gc.get_objects())
            # both have noticed the last one, and have connected again
            before = outcomes["ok"]
            await eventually(lambda: outcomes["ok"] > before + 20, "traffic")
            stop.set()
            for worker in workers[2:]:
                await soon(worker)
            await sender.round_trip()
            await soon(sender.call_as(int, receiver.name, "double", {"number": 1}))
            # at most what a killed broker had acknowledged and not yet written is missing, and each time the
            # receiver has got an event that says so
            lost = [number for number in acknowledged if number not in got]
            by_kill: dict[int, int] = {}
            for number in lost:
                by_kill[acknowledged[number]] = by_kill.get(acknowledged[number], 0) + 1
            reported = 0
            while (event := events.try_next()) is not None:
                if isinstance(event, elbus.Missed):
                    reported += event.count
                reported += isinstance(event, elbus.Disconnected)
            assert reported >= min(len(by_kill), 1) and len(by_kill) <= KILLS
            assert not [kill for kill in by_kill if kill >= generation[0]], "lost without a kill"
            assert len(lost) <= 4 * KILLS, f"{len(lost)} of {len(acknowledged)}"
            assert outcomes["ok"] > 20 * KILLS and outcomes["calls"] > KILLS, outcomes
            for worker in workers[:2]:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            gc.collect()
            assert descriptors() <= open_before + 2
            assert len(asyncio.all_tasks()) <= tasks_before
            assert len(gc.get_objects()) < objects_before + 50_000
            await serving.drain()
    finally:
        broker.close()


def wait_for_reconnection(client: blocking.Client, number: int) -> None:
    """Waits until a client has reconnected so often."""
    events = client.events()
    while client.stats.reconnects < number:
        with contextlib.suppress(elbus.TimedOutError):
            events.next(timeout=0.1)


def test_blocking_clients_survive_killed_brokers(prefix: str) -> None:
    broker = Broker()
    try:
        settings: dict[str, Any] = {"reconnect": Backoff(0.005, 0.02), "timeout": 2.0}
        with (
            blocking.connect(broker.socket, f"{prefix}.a", **settings) as a,
            blocking.connect(broker.socket, f"{prefix}.b", **settings) as b,
        ):
            subscription = b.subscribe(f"{prefix}/#", Options(latest=True))
            for round in range(10):
                broker.kill()
                broker.start()
                for client in (a, b):
                    wait_for_reconnection(client, round + 1)
                b.round_trip()  # the broker has processed the restored subscription
                for _ in range(100):
                    a.publish(f"{prefix}/t", str(round), Qos.NO)
                a.round_trip()
                while (frame := subscription.next(timeout=DEADLINE)) and frame.payload != str(round).encode():
                    pass
                while subscription.try_next():
                    pass
    finally:
        broker.close()


Operation = Callable[[elbus.Client, str], Coroutine[Any, Any, Any]]


async def _subscribe_and_iterate(client: elbus.Client, prefix: str) -> None:
    async for _ in client.subscribe(f"{prefix}/#", Options(share="g")):
        return


async def _connect_and_close(client: elbus.Client, prefix: str) -> None:
    async with elbus.connect(client.address, f"{prefix}.other") as other:
        await other.send(client.name)


async def _serve(client: elbus.Client, prefix: str) -> None:
    service = elbus.Service()

    @service.method
    async def wait() -> None:
        await asyncio.sleep(0)

    async with client.serve(service):
        await client.call(client.name, "wait")


async def _call(client: elbus.Client, prefix: str) -> None:
    await client.call(".broker", "test")


async def _publish(client: elbus.Client, prefix: str) -> None:
    await client.publish(f"{prefix}/t", "x")


async def _filters(client: elbus.Client, prefix: str) -> None:
    await client.add_filters(f"{prefix}/f")
    await client.remove_filters(f"{prefix}/f")


async def _group(client: elbus.Client, prefix: str) -> None:
    await asyncio.gather(*(client.publish(f"{prefix}/t", "x") for _ in range(5)))


OPERATIONS: list[Operation] = [
    _subscribe_and_iterate, _connect_and_close, _serve, _call, _publish, _filters, _group,
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@run
async def test_cancellation_at_every_await(operation: Operation, address: str, prefix: str) -> None:
    """An operation is cancelled after 0, 1, 2, .. steps of the event loop; afterwards everything works."""
    async with elbus.connect(address, f"{prefix}.a") as client:
        # what arrives is taken at the end
        finished = False
        steps = 0
        while not finished and steps < 300:
            publishing = asyncio.create_task(client.publish(f"{prefix}/t", "wake"))
            task = asyncio.create_task(operation(client, prefix))
            for _ in range(steps):
                await asyncio.sleep(0)
            finished = task.done() and not task.cancelled()
            task.cancel()
            (result,) = await soon(asyncio.gather(task, return_exceptions=True))
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                # names are free only when the broker has noticed the end of a cancelled client
                assert isinstance(result, elbus.NameTakenError), result
            await publishing
            steps += 1
        assert await client.round_trip() < DEADLINE
        await client.send(client.name, "end")
        while (frame := await soon(client.frames.next())) and frame.payload != b"end":
            pass
        gc.collect()
        for _ in range(20):
            await client.round_trip()
        assert not client.core.acks.entries and not len(client.core.calls)
        state = client.core.subscriptions
        assert state.operations() == [], state.operations()
        info = await client.call_as(dict[str, Any], ".broker", "client.info", {"name": client.name})
        assert info["options"] == []


@run
async def test_cancelled_consumers_lose_nothing(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as client:
        got: list[int] = []

        async def take() -> None:
            while True:
                frame = await client.frames.next()
                assert frame
                got.append(int(frame.payload))

        random.seed(7)
        sent = 0
        while sent < 2000:
            takers = [asyncio.create_task(take()) for _ in range(3)]
            for _ in range(random.randrange(40)):
                await client.send(client.name, str(sent), Qos.NO)
                sent += 1
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            for taker in takers:
                taker.cancel()
            await asyncio.gather(*takers, return_exceptions=True)
        await client.round_trip()
        while frame := client.frames.try_next():
            got.append(int(frame.payload))
        assert sorted(got) == list(range(sent))


@pytest.mark.timeout(400)
@run_within(300)
async def test_a_hundred_thousand_pending_sends(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a", queue_bytes=1 << 20, timeout=60) as client:
        consumer = asyncio.create_task(count_frames(client, 100_000))
        sends: list[asyncio.Task[None]] = []
        for number in range(100_000):
            sends.append(asyncio.create_task(client.send(client.name, b"x" * 50)))
            if number % 1000 == 0:
                # a loop that never ends an iteration neither reads nor pings
                await asyncio.sleep(0)
        await asyncio.gather(*sends)
        assert await consumer == 100_000
        assert not client.core.acks.entries


async def count_frames(client: elbus.Client, count: int) -> int:
    seen = 0
    async for _ in client.frames:
        seen += 1
        if seen == count:
            break
    return seen


@run
async def test_close_during_everything(address: str, prefix: str) -> None:
    for delay in range(12):
        client = await elbus.connect(address, f"{prefix}.a", reconnect=True)
        subscription = await client.subscribe(f"{prefix}/#")
        events = client.events()
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(coroutine)
            for coroutine in (
                client.publish(f"{prefix}/t", "x"),
                client.call(".broker", "test"),
                client.call(client.name, "nobody serves this", timeout=60),
                client.frames.next(),
                subscription.next(),
                _forever(subscription),
                client.subscribe("x", Options(latest=True)),
                client.add_filters("y"),
                client.round_trip(),
                client.send(client.name, bytes(5_000_000)),
                client.close(),
                client.close(),
            )
        ]
        for _ in range(delay):
            await asyncio.sleep(0)
        await soon(client.close())
        results = await soon(asyncio.gather(*tasks, return_exceptions=True))
        for result in results:
            assert not isinstance(result, BaseException) or isinstance(result, elbus.Error), result
        assert [event async for event in events][-1] == elbus.Closed(
            "the client has been closed: connect a new one"
        )
        with pytest.raises(elbus.ClosedError):
            await client.send("x", qos=Qos.NO)
        with pytest.raises(elbus.ClosedError):
            await client.subscribe("x")


async def _forever(subscription: elbus.Subscription) -> None:
    async for _ in subscription:
        pass


@run
async def test_a_slow_consumer_slows_the_sender_and_loses_nothing(address: str, prefix: str) -> None:
    async with (
        elbus.connect(address, f"{prefix}.b", queue_bytes=200_000) as receiver,
        elbus.connect(address, f"{prefix}.a", timeout=60) as sender,
    ):
        frames = receiver.frames
        sending = asyncio.create_task(send_many(sender, receiver.name, 60_000))
        numbers: list[int] = []
        async for frame in frames:
            numbers.append(int(frame.payload[:10]))
            assert receiver.core.demux.frames.bytes < 2_000_000
            if len(numbers) % 5000 == 0:
                await asyncio.sleep(0.02)
            if len(numbers) == 60_000:
                break
        await soon(sending)
        assert numbers == list(range(60_000)) and frames.missed == 0


async def send_many(client: elbus.Client, target: str, count: int) -> None:
    for number in range(count):
        await client.send(target, f"{number:010}".encode() + bytes(500), Qos.NO)


@run
async def test_a_consumer_that_stops_keeps_the_client_connected(address: str, prefix: str) -> None:
    async with (
        elbus.connect(address, f"{prefix}.b", queue_bytes=100_000, hold_limit=0.2) as receiver,
        elbus.connect(address, f"{prefix}.a", timeout=60) as sender,
    ):
        frames = receiver.frames
        await send_many(sender, receiver.name, 5_000)
        await sender.round_trip()
        await eventually(lambda: frames.missed > 0, "frames are dropped")
        assert await receiver.round_trip() < DEADLINE
        first = await soon(frames.next())
        assert first and first.missed == 0
        seen, missed = 1, 0
        while frame := frames.try_next():
            seen, missed = seen + 1, missed + frame.missed
        await sender.send(receiver.name, b"0000000000end")
        last = await soon(frames.next())
        assert last and last.payload.endswith(b"end")
        assert seen + missed + last.missed == 5_000 and frames.missed == missed + last.missed


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
@run
async def test_overflow(overflow: Overflow, address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a", queue_bytes=20_000, overflow=overflow) as client:
        frames = client.frames
        await send_many(client, client.name, 1000)
        await client.round_trip()
        got = [frame for frame in iter(frames.try_next, None) if frame]
        numbers = [int(frame.payload[:10]) for frame in got]
        if overflow is Overflow.DROP_OLDEST:
            assert numbers[-1] == 999
            assert len(got) + sum(frame.missed for frame in got) == 1000
        else:
            assert numbers[0] == 0 and numbers == list(range(len(numbers)))
        assert len(got) + frames.missed == 1000 and len(got) < 100


@run
async def test_frames_that_nobody_wants_are_bounded(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a", queue_bytes=50_000) as client:
        await send_many(client, client.name, 5_000)
        await client.round_trip()
        assert client.core.demux.frames.bytes <= 60_000
        assert not client.core.flow.paused


PAYLOADS = [
    b"", b"\x11", b"\x12\x01", b"\x00n", b"\x01\x01\0\0\0m\0", b"\x01\x07\0\0\0\xff\0",
    b"\x11\x01\0\0\0", b"\x12\x01\0\0\0\x00\x80x",
]  # fmt: skip


def hostile(seed: int) -> bytes:
    """Returns frames of a broker with random changes."""
    choose = random.Random(seed)
    data = bytearray()
    for _ in range(choose.randrange(1, 30)):
        kind = choose.choice([0, 1, 0x12, 0x13, 0xFE, 0x12, 1, choose.randrange(256)])
        if kind in (0, 0xFE):
            data += struct.pack("<BIB", kind, choose.randrange(1 << 32), choose.randrange(256))
            continue
        body = choose.choice([b"b", b".broker", b"", b"\xff", b"a" * 300]) + b"\0"
        if kind == 1:
            body += choose.choice([b"t/u", b"", b"x/\xc3", b"t" * 2000]) + b"\0"
        body += choose.choice([*PAYLOADS, bytes(choose.randrange(3000))])
        length = len(body) if choose.random() < 0.95 else choose.randrange(1 << choose.randrange(1, 33))
        data += struct.pack("<BIB", kind, length, choose.randrange(3)) + body
    for _ in range(choose.choice([0, 0, 1, 3])):
        if data:
            data[choose.randrange(len(data))] = choose.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(12))
@run
async def test_hostile_bytes(seed: int) -> None:
    """Whatever a broker sends, the client reports a typed error or works on."""
    choose = random.Random(seed)
    seeds = iter(range(seed * 1000, seed * 1000 + 25))

    def send(connection: socket.socket) -> None:
        register(connection)
        data = hostile(next(seeds, 0))
        while data:
            size = choose.choice([1, 2, 3, 7, 100, 10_000])
            connection.sendall(data[:size])
            data = data[size:]
        connection.shutdown(socket.SHUT_WR)
        until_closed(connection)

    service = elbus.Service()

    @service.method
    def m() -> int:
        return 1

    with peer(send) as address:
        for _ in range(25):
            client = await elbus.connect(address, "a", timeout=2)
            subscription_task = asyncio.ensure_future(client.subscribe("t/#", Options(latest=True)))
            serving = client.serve(service)
            call = asyncio.create_task(client.call("b", "m"))
            while (await soon(client.frames.next())) is not None:
                pass
            await soon(asyncio.shield(client.core.closed))
            for result in await soon(asyncio.gather(subscription_task, call, return_exceptions=True)):
                assert not isinstance(result, BaseException) or isinstance(result, elbus.Error), result
            await soon(serving.drain())
            await soon(client.close())


@run
async def test_memory_does_not_grow(address: str, prefix: str) -> None:
    """Thousands of senders, topics, subscriptions, calls and connections leave nothing behind."""
    service = elbus.Service()
    service.method(lambda: None, name="m")

    async def work(client: elbus.Client, round: int) -> None:
        for number in range(200):
            await client.publish(f"{prefix}/{round}/{number}", "x", Qos.NO)
            await client.call(client.name, "m")
        async with client.subscribe(f"{prefix}/{round}/#") as subscription:
            await client.publish(f"{prefix}/{round}/x", bytes(100_000))
            await soon(subscription.next())
        async with elbus.connect(address, f"{prefix}.{round}") as other:
            await other.send(client.name, "x")
            await soon(client.frames.next())
        with pytest.raises(elbus.Error):
            await elbus.connect(address, client.name)

    async with elbus.connect(address, f"{prefix}.a") as client, client.serve(service):
        for round in range(5):
            await work(client, round)
        gc.collect()
        tracemalloc.start()
        before, files = tracemalloc.get_traced_memory()[0], descriptors()
        for round in range(5, 25):
            await work(client, round)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        # texts of topics and names are cached, up to limits
        assert after - before < 4_000_000, after - before
        assert descriptors() <= files


def test_threads_share_a_blocking_client(address: str, prefix: str) -> None:
    """Ten threads send, call and subscribe with one client; each gets its own outcomes, in order."""
    service = elbus.Service()
    service.method(lambda number: number, name="same")
    problems: list[BaseException] = []
    with blocking.connect(address, f"{prefix}.a", timeout=30) as client, client.serve(service):

        def work(thread: int) -> None:
            try:
                with client.subscribe(f"{prefix}/{thread}") as subscription:
                    for number in range(300):
                        client.publish(f"{prefix}/{thread}", str(number), Qos.NO)
                    client.round_trip()
                    got = [
                        int(frame.payload)
                        for frame in (subscription.next(timeout=30) for _ in range(300))
                        if frame
                    ]
                    assert got == list(range(300))
                for number in range(20):
                    assert client.call_as(int, client.name, "same", {"number": number}) == number
                    client.send(client.name, "x")
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not problems, problems
        frames = client.frames
        assert len([frames.next(timeout=DEADLINE) for _ in range(200)]) == 200


def test_order_of_frames_with_and_without_acknowledgement(address: str, prefix: str) -> None:
    with blocking.connect(address, f"{prefix}.a") as client:
        for number in range(2000):
            client.send(client.name, str(number), Qos.PROCESSED if number % 50 == 0 else Qos.NO)
        client.round_trip()
        frames = client.frames
        assert [int(frame.payload) for frame in (next(frames) for _ in range(2000))] == list(range(2000))


FORK = """
import os, sys
import elbus_client
from elbus_client import blocking

address = sys.argv[1]
client = blocking.connect(address, "fork.parent")
client.send("fork.parent", "before")
child = os.fork()
if child == 0:
    try:
        client.send("fork.parent", "from the child", elbus_client.Qos.NO)
    except elbus_client.WrongThreadError as error:
        assert "fork" in str(error)
    else:
        os._exit(3)
    try:
        client.send("fork.parent", "from the child")
    except elbus_client.WrongThreadError:
        pass
    else:
        os._exit(4)
    try:
        client.frames.next(timeout=1)
    except elbus_client.WrongThreadError:
        pass
    else:
        os._exit(5)
    with blocking.connect(address, "fork.child") as own:
        own.send("fork.parent", "hello")
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
payloads = [client.frames.next(timeout=10).payload for _ in range(2)]
assert payloads == [b"before", b"hello"], payloads
client.send("fork.parent", "after")
assert next(client.frames).payload == b"after"
client.close()
print("ok")
"""


def test_fork(address: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORK, address],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")},
    )
    assert (result.stdout, result.returncode) == ("ok\n", 0), result.stderr


INTERRUPT = """
import signal, sys, threading, os, time
from elbus_client import blocking
# a parent that ignores the signal passes that on
signal.signal(signal.SIGINT, signal.default_int_handler)
client = blocking.connect(sys.argv[1], "interrupted")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    client.frames.next()
except KeyboardInterrupt:
    client.send("interrupted", "x")
    print(client.frames.next(timeout=5).payload)
client.close()
"""


def test_interrupt(address: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPT, address],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")},
    )
    assert (result.stdout, result.returncode) == ("b'x'\n", 0), result.stderr


def test_a_blocking_call_on_the_thread_of_the_clients(address: str, prefix: str) -> None:
    service = elbus.Service()
    with blocking.connect(address, f"{prefix}.a") as client:

        @service.method
        async def wrong() -> str:
            try:
                client.send(client.name, "x")
            except elbus.WrongThreadError as error:
                return str(error)
            return "no error"

        @service.method
        def right() -> str:
            client.send(client.name, "x")
            return "sent"

        with client.serve(service):
            assert "await the asyncio client" in client.call_as(str, client.name, "wrong")
            assert client.call_as(str, client.name, "right") == "sent"


@run
async def test_task_groups(address: str, prefix: str) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("TaskGroup is new in Python 3.11")
    async with elbus.connect(address, f"{prefix}.a") as client:
        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: F821
            async with asyncio.TaskGroup() as group:
                group.create_task(client.send(f"{prefix}.nobody"))
                group.create_task(client.frames.next())
                group.create_task(client.subscribe("x"))
                group.create_task(client.call(client.name, "nobody serves this"))
        assert raised.value.subgroup(elbus.NotRegisteredError) is not None
        assert await client.round_trip() < DEADLINE


@run
async def test_long_frames_of_each_kind(address: str, prefix: str) -> None:
    """They are read into memory of their own; what is before and behind them arrives in order."""
    async with elbus.connect(address, f"{prefix}.a") as client:
        subscription = await client.subscribe(f"{prefix}/long")
        for size in (262_000, 262_144, 300_000, 9_000_000):
            payload = bytes([65 + size % 7]) * size
            await client.send(client.name, "before")
            await client.send(client.name, payload)
            await client.broadcast(client.name, payload)
            await client.publish(f"{prefix}/long", payload)
            await client.send(client.name, "behind")
            got = [await soon(client.frames.next()) for _ in range(4)]
            assert [frame.payload for frame in got if frame] == [b"before", payload, payload, b"behind"]
            published = await soon(subscription.next())
            assert published and (published.topic, published.payload) == (f"{prefix}/long", payload)
        service = elbus.Service()
        service.method(lambda data: data, name="echo")
        async with client.serve(service):
            result = await client.call_as(bytes, client.name, "echo", {"data": bytes(1_000_000)})
            assert result == bytes(1_000_000)
        buffer = client.core.connection._buffer if client.core.connection else b""  # pyright: ignore
        assert len(buffer) == 256 * 1024


LONG_FRAMES = {
    "no NUL": b"\x12" + (400_000).to_bytes(4, "little") + b"\x00" + b"a" * 400_000,
    "no topic": b"\x01" + (400_000).to_bytes(4, "little") + b"\x00a\x00" + b"a" * 399_998,
    "not UTF-8": b"\x13" + (400_000).to_bytes(4, "little") + b"\x00\xff\x00" + b"a" * 399_998,
}


@pytest.mark.parametrize("frame", LONG_FRAMES.values(), ids=LONG_FRAMES.keys())
@run
async def test_invalid_long_frames(frame: bytes) -> None:
    def send(connection: socket.socket) -> None:
        register(connection)
        connection.sendall(frame)
        until_closed(connection)

    with peer(send) as address:
        client = await elbus.connect(address, "a")
        assert await soon(client.frames.next()) is None
        with pytest.raises(elbus.DisconnectedError, match="invalid frame"):
            await client.send("b")


def test_another_event_loop(address: str, prefix: str) -> None:
    async def connect() -> elbus.Client:
        return await elbus.connect(address, f"{prefix}.a")

    async def use(client: elbus.Client) -> None:
        for operation in (
            lambda: client.send("x"),
            lambda: client.send("x", qos=Qos.NO),
            lambda: client.subscribe("x"),
            lambda: client.call("x", "m"),
            lambda: client.frames.next(),
        ):
            with pytest.raises(elbus.WrongThreadError, match="event loop"):
                await operation()

    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(connect())
    asyncio.run(use(client))
    loop.run_until_complete(client.close())
    loop.close()


NOT_CLOSED = """
import sys
from elbus_client import Qos, blocking
client = blocking.connect(sys.argv[1], "not.closed")
client.subscribe("x")
client.send("not.closed", "x", Qos.NO)
print("end")
"""


def test_a_program_that_does_not_close_its_client(address: str) -> None:
    for _ in range(5):
        result = subprocess.run(
            [sys.executable, "-c", NOT_CLOSED, address],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")},
        )
        assert (result.stdout, result.stderr, result.returncode) == ("end\n", "", 0)


@run
async def test_methods_that_end_in_unusual_ways(address: str, prefix: str) -> None:
    service = elbus.Service()

    @service.method
    def cancelled() -> None:
        raise asyncio.CancelledError

    @service.method
    async def cancelled_later() -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    @service.method
    def unconvertible() -> object:
        return object()

    @service.method
    def recursive() -> list[Any]:
        items: list[Any] = []
        items.append(items)
        return items

    @service.method
    def fine() -> int:
        return 1

    @service.notification
    def notified(notification: elbus.Notification) -> None:
        raise asyncio.CancelledError

    async with elbus.connect(address, f"{prefix}.a") as client, client.serve(service):
        await client.notify(client.name, b"x")
        for method in ("cancelled", "cancelled_later", "unconvertible", "recursive"):
            with pytest.raises(elbus.RpcError) as raised:
                await client.call(client.name, method)
            assert raised.value.rpc_code == -32603
        assert await client.call_as(int, client.name, "fine") == 1


@run
async def test_a_reply_that_cannot_be_sent_is_an_error_for_the_caller(address: str, prefix: str) -> None:
    """The caller does not wait for its timeout, and the server answers further calls."""

    class Handler:
        """A handler that returns whatever the parameters say."""

        def handle_call(self, call: elbus.Call) -> Any:
            results: dict[bytes, Any] = {b"long": bytes(5000), b"text": "text", b"fine": b"fine"}
            if call.params == b"error":
                raise elbus.RpcError(5, bytes(5000))
            if call.params == b"later":
                return self.later()
            return results[call.params]

        async def later(self) -> Any:
            return "text"

        def handle_notification(self, notification: elbus.Notification) -> None:
            """Receives none."""

    async with (
        elbus.connect(address, f"{prefix}.server", max_frame_bytes=1000) as server,
        elbus.connect(address, f"{prefix}.client") as client,
        server.serve(Handler()),
    ):
        for params, text in (
            (b"long", "the result cannot be sent"),
            (b"error", "the result cannot be sent"),
            (b"text", "the method raised TypeError"),
            (b"later", "handle_call must return bytes, not str"),
        ):
            with pytest.raises(elbus.RpcError, match=text) as caught:
                await soon(client.call(server.name, "m", params))
            assert caught.value.rpc_code == -32603
        assert await soon(client.call(server.name, "m", b"fine")) == b"fine"


EXITING = """
import logging
import sys
from dataclasses import dataclass
from elbus_client import Error, RpcError, Service, blocking

logging.getLogger("elbus_client").setLevel(logging.CRITICAL)
service = Service()

@service.method
def leave() -> None:
    sys.exit(3)

@service.method
async def leave_later() -> None:
    sys.exit(4)

@service.method
def stop() -> int:
    return next(iter([]))

@service.method(thread=True)
def stop_in_thread() -> int:
    return next(iter([]))

@service.method
def fine() -> int:
    return 1

@service.notification
def notified(notification: object) -> None:
    sys.exit(5)

@dataclass
class Leaving:
    def __post_init__(self) -> None:
        sys.exit(6)

@service.method
def empty() -> dict:
    return {}

with blocking.connect(sys.argv[1], sys.argv[2]) as client, client.serve(service):
    for method in ("leave", "leave_later", "stop", "stop_in_thread"):
        try:
            client.call(client.name, method)
        except RpcError as error:
            print(error.text)
    for _ in range(2000):
        client.notify(client.name, b"x")
    try:
        client.call_as(Leaving, client.name, "empty")
    except SystemExit as error:
        print("exit", error.code)
    print(client.call_as(int, client.name, "fine"))
"""


def test_methods_that_exit_do_not_end_the_thread_of_blocking_clients(address: str, prefix: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXITING, address, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python/src")},
    )
    exits, stops = 2 * "the method raised SystemExit\n", 2 * "the method raised StopIteration\n"
    assert done.stdout == f"{exits}{stops}exit 6\n1\n", done
    assert done.returncode == 0


@run
async def test_a_client_with_many_cursors_leaves_some_for_others(address: str, prefix: str) -> None:
    service = elbus.Service()

    @service.cursor(next="next")
    def items() -> list[int]:
        return [1]

    async with (
        elbus.connect(address, f"{prefix}.server") as server,
        elbus.connect(address, f"{prefix}.greedy") as greedy,
        elbus.connect(address, f"{prefix}.other") as other,
        greedy.secondary() as secondary,
        server.serve(service),
    ):
        await asyncio.gather(*(greedy.call(server.name, "items") for _ in range(1000)))
        for client in (greedy, secondary):
            with pytest.raises(elbus.RpcError, match="limit of 1000 open cursors of one client reached"):
                await client.call(server.name, "items")
        async with other.cursor(int, server.name, "items", next="next") as cursor:
            assert await cursor.block(5) == [1]
