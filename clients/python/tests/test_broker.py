"""The asyncio client with a real broker: operations, consumers, RPC, reconnection, closing."""

from __future__ import annotations

import asyncio
import gc
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from broker import Broker
from support import eventually, run, soon

import elbus_client as elbus
from elbus_client import Backoff, Options, Qos


@run
async def test_messages(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as a, elbus.connect(address, f"{prefix}.b") as b:
        await a.send(b.name, b"hi")
        await a.broadcast(f"{prefix}.?", "all", Qos.REALTIME)
        frames = [await soon(b.frames.next()), await soon(b.frames.next())]
        assert [(f.kind, f.sender, f.payload, f.realtime) for f in frames if f] == [
            (elbus.FrameKind.MESSAGE, a.name, b"hi", False),
            (elbus.FrameKind.BROADCAST, a.name, b"all", True),
        ]
        with pytest.raises(elbus.NotRegisteredError) as raised:
            await a.send(f"{prefix}.nobody")
        assert raised.value.code == 0x71


@run
async def test_publications(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as a, elbus.connect(address, f"{prefix}.b") as b:
        async with b.subscribe(f"{prefix}/+") as all_topics:
            await b.add_filters([f"{prefix}/x/y"])
            await b.exclude(f"{prefix}/secret")
            for topic in ("t", "secret", "x/y"):
                await a.publish(f"{prefix}/{topic}", topic)
            await a.publish_for(f"{prefix}/for", b.name, bytearray(b"for"))
            await a.publish_for(f"{prefix}/for", a.name, "not for b")
            await b.unexclude(f"{prefix}/secret")
            await a.publish(f"{prefix}/secret", memoryview(b"now"))
            got = [await soon(all_topics.next()) for _ in range(3)]
            assert [frame.payload for frame in got if frame] == [b"t", b"for", b"now"]
            frame = await soon(b.frames.next())
            assert frame and frame.topic == f"{prefix}/x/y"
        await a.publish(f"{prefix}/t", "after the end")
        assert all_topics.try_next() is None and b.frames.try_next() is None
        assert await all_topics.next() is None


@run
async def test_direct_iteration_unsubscribes(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as a:
        sending = asyncio.create_task(publish_until_cancelled(a, f"{prefix}/t"))
        async for frame in a.subscribe(f"{prefix}/#"):
            assert frame.payload == b"x"
            break
        sending.cancel()
        gc.collect()
        await eventually(lambda: not a.core.subscriptions.is_subscribed(f"{prefix}/#"), "unsubscribed")


async def publish_until_cancelled(client: elbus.Client, topic: str) -> None:
    while True:
        await client.publish(topic, "x")
        await asyncio.sleep(0.01)


@run
async def test_an_abandoned_subscription_unsubscribes(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as a:
        subscription = await a.subscribe(f"{prefix}/#")
        assert a.core.subscriptions.is_subscribed(f"{prefix}/#")
        del subscription
        gc.collect()
        await eventually(lambda: not a.core.subscriptions.is_subscribed(f"{prefix}/#"), "unsubscribed")
        await a.publish(f"{prefix}/t", "x")
        await a.round_trip()
        assert a.frames.try_next() is None


@run
async def test_an_unclosed_client_is_closed(address: str, prefix: str) -> None:
    client = await elbus.connect(address, f"{prefix}.a")
    core = client.core
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    assert any("unclosed" in str(warning.message) for warning in caught)
    await soon(asyncio.shield(core.closed))
    async with elbus.connect(address, f"{prefix}.a"):
        pass


@run
async def test_options(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as a, elbus.connect(address, f"{prefix}.b") as b:
        first = await a.subscribe(f"{prefix}/jobs/#", Options(share="workers"))
        second = await b.subscribe(f"{prefix}/jobs/#", Options(share="workers"))
        for number in range(100):
            await a.publish(f"{prefix}/jobs/{number}", str(number))
        await a.round_trip()
        await b.round_trip()
        one, two = numbers(first), numbers(second)
        assert len(one) > 20 and len(two) > 20 and sorted(one + two) == list(range(100))
        key = await b.subscribe(f"{prefix}/k/#", Options(key=("g", 2), lossy=True))
        every = await b.subscribe(f"{prefix}/e", Options(every=0.5))
        await a.publish(f"{prefix}/k/1", "k")
        for number in range(10):
            await a.publish(f"{prefix}/e", str(number))
        frame = await soon(key.next())
        assert frame and frame.payload == b"k"
        got: list[bytes] = []
        while not got or got[-1] != b"9":
            frame = await soon(every.next())
            assert frame
            got.append(frame.payload)
        assert got[0] == b"0" and len(got) < 10
        with pytest.raises(elbus.RefusedError) as raised:
            await a.subscribe("$share//x")
        assert raised.value.code == 0x72


def numbers(subscription: elbus.Subscription) -> list[int]:
    return [int(frame.payload) for frame in iter(subscription.try_next, None) if frame]


@run
async def test_latest_replaces_what_waits(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.b", queue_bytes=100_000, hold_limit=60) as b:
        latest = await b.subscribe(f"{prefix}/#", Options(latest=True))
        async with elbus.connect(address, f"{prefix}.a") as a:
            for number in range(40_000):
                await a.publish(f"{prefix}/t", f"{number:01000}", Qos.NO)
            await a.round_trip()
        got: list[int] = []
        while not got or got[-1] != 39_999:
            frame = await soon(latest.next())
            assert frame
            got.append(int(frame.payload))
        assert len(got) < 40_000 and got == sorted(got)


@run
async def test_retained_values(retain_address: str, prefix: str) -> None:
    async with elbus.connect(retain_address, f"{prefix}.a") as a:
        await a.publish(f"{prefix}/t/1", "one")
        await a.publish(f"{prefix}/t/2", "two")
        async with elbus.connect(retain_address, f"{prefix}.b") as b:
            values = await b.subscribe(f"{prefix}/t/+")
            got = [await soon(values.next()), await soon(values.next())]
            assert sorted((f.sender, f.topic, f.payload) for f in got if f) == [
                (a.name, f"{prefix}/t/1", b"one"),
                (a.name, f"{prefix}/t/2", b"two"),
            ]
            result = await b.call_as(dict[str, str], ".broker", "retain.get", {"topic": f"{prefix}/t/1"})
            assert result["payload"] == "one"
            shared = await b.subscribe(f"{prefix}/t/+", Options(share="g"))
            await b.round_trip()
            assert shared.try_next() is None
            newest = await b.subscribe(f"{prefix}/t/1", Options(latest=True))
            await a.publish(f"{prefix}/t/1", "new")
            frame = await soon(newest.next())
            assert frame and frame.payload == b"new"


@run
async def test_secondaries(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a") as a:
        async with a.secondary() as first, a.secondary() as second:
            assert [first.name, second.name] == [f"{prefix}.a%%0", f"{prefix}.a%%1"]
            third = await first.secondary()
            assert third.name == f"{prefix}.a%%2"
            await first.send(second.name, "hi")
            frame = await soon(second.frames.next())
            assert frame and frame.sender == first.name
            await third.close()


@dataclass
class Speed:
    """Parameters of a method."""

    value: float
    unit: str = "m/s"


class Math:
    """An interface."""

    async def add(self, a: int, b: int = 1) -> int:
        """Adds."""
        raise NotImplementedError

    async def scale(self, speed: Speed) -> list[Speed]:
        raise NotImplementedError


def math_service() -> elbus.Service:
    service = elbus.Service()

    @service.method
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @service.method
    def scale(speed: Speed) -> list[Speed]:
        return [speed, Speed(speed.value * 2, speed.unit)]

    @service.method(name="who")
    def who_calls(call: elbus.Call) -> str:
        return call.sender

    @service.method(thread=True)
    def fail(kind: str) -> None:
        if kind == "rpc":
            raise elbus.RpcError(7, "no water")
        raise RuntimeError("inner detail")

    @service.method(raw=True)
    def echo(params: bytes) -> bytes:
        return params

    @service.cursor("squares.next")
    def squares(to: int) -> Any:
        return (number * number for number in range(to))

    @service.cursor("slow.next")
    async def slow() -> Any:
        async def items() -> Any:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        return items()

    return service


@run
async def test_rpc(address: str, prefix: str) -> None:
    notified: list[elbus.Notification] = []
    service = math_service()
    service.notification(notified.append)
    async with elbus.connect(address, f"{prefix}.a") as a, elbus.connect(address, f"{prefix}.b") as b:
        async with b.serve(service):
            math = a.proxy(Math, b.name)
            assert await math.add(1, b=2) == 3 and await math.add(5) == 6
            assert await math.scale(Speed(2.5)) == [Speed(2.5), Speed(5.0)]
            assert await a.call_as(str, b.name, "who") == a.name
            assert await a.call(b.name, "echo", b"\0raw\xff") == b"\0raw\xff"
            await a.call0(b.name, "add", b"\x81\xa1a\x01")
            await a.notify(b.name, "note", Qos.PROCESSED)
            squares = a.cursor(int, b.name, "squares", {"to": 4}, next="squares.next")
            assert [item async for item in squares] == [0, 1, 4, 9]
            cursor = await a.cursor(int, b.name, "slow", next="slow.next")
            assert await cursor.block(2) == [0, 1]
            assert await cursor.next() == 2 and await cursor.next() is None
            await eventually(lambda: [n.payload for n in notified] == [b"note"], "the notification")
            for method, params, code, text in [
                ("nothing", None, -32601, ""),
                ("add", {"a": "1"}, -32602, "a: expected int, got str '1'"),
                ("add", {"b": 1}, -32602, "a is missing"),
                ("add", [1, 2], -32602, "expected a map of a, b"),
                ("scale", {"unit": "m"}, -32602, "speed.value is missing"),
                ("fail", {"kind": "rpc"}, 7, "no water"),
                ("fail", {"kind": "other"}, -32603, "the method raised RuntimeError"),
                ("squares.next", {"u": b"x"}, -32001, ""),
                ("squares.next", 5, -32602, "expected {u: token} or {u: token, n: count}"),
            ]:
                with pytest.raises(elbus.RpcError) as raised:
                    await a.call_as(object, b.name, method, params)
                assert (raised.value.rpc_code, raised.value.text) == (code, text)
            with pytest.raises(elbus.RpcError) as raised:
                await a.call(b.name, "add", b"\xc1")
            assert raised.value.rpc_code == -32700
            with pytest.raises(elbus.ConversionError, match="expected int, got str"):
                await a.call_as(int, b.name, "who")
            with pytest.raises(elbus.AlreadyServingError):
                b.serve(service)
        with pytest.raises(elbus.TimedOutError):
            await a.call(b.name, "add", timeout=0.05)
        with pytest.raises(elbus.NotRegisteredError):
            await a.call(f"{prefix}.nobody", "add")


@run
async def test_reconnection(prefix: str) -> None:
    broker = Broker()
    try:
        backoff = Backoff(first_delay=0.01, max_delay=0.05)
        async with elbus.connect(broker.socket, f"{prefix}.a", reconnect=backoff) as a:
            events = a.events()
            subscription = await a.subscribe(f"{prefix}/#", Options(latest=True))
            await a.exclude(f"{prefix}/secret")
            for round in range(3):
                broker.kill()
                event = await soon(events.next())
                assert isinstance(event, elbus.Disconnected)
                with pytest.raises(elbus.DisconnectedError):
                    await a.send("x", qos=Qos.NO)
                broker.start()
                while not isinstance(event, elbus.Connected):
                    event = await soon(events.next())
                await a.publish(f"{prefix}/secret", "x")
                await a.publish(f"{prefix}/t", str(round))
                frame = await soon(subscription.next())
                assert frame and frame.payload == str(round).encode()
            assert a.stats.reconnects == 3
    finally:
        broker.close()


@run
async def test_without_reconnection_the_client_ends(prefix: str) -> None:
    broker = Broker()
    try:
        client = await elbus.connect(broker.socket, f"{prefix}.a")
        frames = asyncio.create_task(client.frames.next())
        events = client.events()
        broker.kill()
        assert await soon(frames) is None
        assert [type(event) async for event in events] == [elbus.Disconnected, elbus.Closed]
        assert [event async for event in client.events()] == []
        with pytest.raises(elbus.DisconnectedError, match="not connected"):
            await client.send("x")
        with pytest.raises(elbus.DisconnectedError):
            await client.connected()
        await client.close()
    finally:
        broker.close()


@run
async def test_the_name_is_free_after_close(address: str, prefix: str) -> None:
    for _ in range(50):
        async with elbus.connect(address, f"{prefix}.a") as a:
            await a.send(a.name, b"x" * 100, Qos.NO)
    async with elbus.connect(address, f"{prefix}.a") as a:
        with pytest.raises(elbus.NameTakenError):
            await elbus.connect(address, f"{prefix}.a")
