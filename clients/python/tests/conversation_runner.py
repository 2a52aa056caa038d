"""Runs conversations with the asyncio client. Owns the broker's side of the connection and the client's
operations.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import socket
import tempfile
from typing import Any

import msgpack
from data import Conversation, Id, constant, read_bytes, read_fields, tokens
from virtual_loop import VirtualLoop

import elbus_client as elbus

QOS = {
    "no": elbus.Qos.NO,
    "processed": elbus.Qos.PROCESSED,
    "realtime": elbus.Qos.REALTIME,
    "realtime-processed": elbus.Qos.REALTIME_PROCESSED,
}
HEADER_BYTES = 9
PROBE = b".client/probe"


class Answers:
    """The client's server of calls: reports them, and ends each as the conversation says."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.calls: list[tuple[elbus.Call, asyncio.Future[bytes]]] = []
        self.notifications: list[elbus.Notification] = []

    def handle_call(self, call: elbus.Call) -> asyncio.Future[bytes]:
        answer: asyncio.Future[bytes] = self.loop.create_future()
        self.calls.append((call, answer))
        return answer

    def handle_notification(self, notification: elbus.Notification) -> None:
        self.notifications.append(notification)


class Runner:
    """One conversation."""

    def __init__(
        self, loop: VirtualLoop, conversation: Conversation, byte_by_byte: bool, cut_at: int = 0
    ) -> None:
        self.loop = loop
        self.conversation = conversation
        self.byte_by_byte = byte_by_byte
        #: How many bytes `cut` writes, and whether it can be more.
        self.cut_at = cut_at
        self.more_cuts = False
        self.folder = tempfile.mkdtemp(prefix="elbus-")
        self.path = str(pathlib.Path(self.folder) / "bus.sock")
        self.listener: socket.socket | None = None
        self.peer: socket.socket | None = None
        #: What has been read, and of that what is to be expected.
        self.raw = b""
        self.received = b""
        self.greeted = False
        self.settings: dict[str, Any] = {"timeout": 5.0}
        self.pings = False
        self.client: elbus.Client | None = None
        self.events: elbus.ConnectionEvents | None = None
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.consumers: dict[str, elbus.Subscription] = {}
        self.cursors: dict[str, elbus.Cursor[Any]] = {}
        self.calls: dict[str, asyncio.Future[bytes]] = {}
        self.answers = Answers(loop)
        self.ids: dict[str, bytes] = {}

    async def run(self) -> None:
        try:
            self.listen()
            for number, line in self.conversation.lines:
                try:
                    await self.step(line)
                except Exception as error:
                    raise AssertionError(f"{self.conversation.file}:{number}: {line}: {error!r}") from error
            await self.finish()
        finally:
            for task in self.tasks.values():
                task.cancel()
            if self.client is not None:
                self.client.core.end(elbus.ClosedError())
            for sock in (self.peer, self.listener):
                if sock is not None:
                    sock.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            await self.loop.settle()

    async def step(self, line: str) -> None:
        first, _, rest = line.partition(" ")
        names = {">": "expect", "<": "write", "=": "outcome"}
        method = getattr(self, f"on_{names.get(first, first)}")
        await method(rest)

    # the broker

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(5)
        self.listener.setblocking(False)

    async def on_settings(self, text: str) -> None:
        for setting in text.split(", "):
            words = setting.split()
            if words[0] == "timeout":
                self.settings["timeout"] = int(words[1]) / 1000
            elif words[0] == "ping":
                self.settings["ping_interval"] = int(words[1]) / 1000
                self.pings = True
            elif words[:2] == ["reconnect", "off"]:
                self.settings["reconnect"] = None
            else:
                assert words[0] == "reconnect", setting
                first, last = (int(word) / 1000 for word in words[1:])
                self.settings["reconnect"] = elbus.Backoff(first, last, jitter=0)

    async def on_accepted(self, _: str) -> None:
        await self.loop.settle()
        assert self.listener is not None
        self.drop_peer()
        self.peer, _address = self.listener.accept()
        self.peer.setblocking(False)
        self.raw, self.received, self.greeted = b"", b"", False

    async def on_registered(self, text: str) -> None:
        name = constant(text)
        await self.on_accepted("")
        await self.write(bytes.fromhex("EB0100"))
        await self.expect([bytes.fromhex("EB0100"), len(name).to_bytes(2, "little"), name])
        await self.write(b"\x01\x01")

    def drop_peer(self) -> None:
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def read(self) -> bool:
        """Reads what the client has written. Returns whether it has closed the connection."""
        assert self.peer is not None, "no connection"
        while True:
            try:
                data = self.peer.recv(1 << 20)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True
            if not data:
                return True
            self.raw += data
            self.sort()

    async def write(self, data: bytes) -> None:
        assert self.peer is not None, "no connection"
        if self.byte_by_byte and len(data) < 100_000:
            for at in range(len(data)):
                with contextlib.suppress(BrokenPipeError):
                    self.peer.send(data[at : at + 1])
                await self.loop.settle()
        else:
            while data:
                data = data[self.peer.send(data) :]
                await self.loop.settle()
        await self.loop.settle()

    async def on_write(self, text: str) -> None:
        pieces, _ = read_bytes(tokens(text))
        await self.write(b"".join(self.ids[p.name] if isinstance(p, Id) else p for p in pieces))

    def sort(self) -> None:
        """Moves whole frames from ``raw`` to ``received``, without pings and probes."""
        if not self.greeted:
            length = 5 + int.from_bytes(self.raw[3:5], "little")
            if len(self.raw) < 5 or len(self.raw) < length:
                return
            self.greeted = True
            self.received, self.raw = self.received + self.raw[:length], self.raw[length:]
        while len(self.raw) >= HEADER_BYTES:
            length = HEADER_BYTES + (int.from_bytes(self.raw[5:9], "little") if self.raw[4] else 0)
            if len(self.raw) < length:
                return
            frame, self.raw = self.raw[:length], self.raw[length:]
            if self.pings or (frame[4] and frame[HEADER_BYTES:] != PROBE):
                self.received += frame

    async def expect(self, pieces: list[bytes | Id]) -> None:
        length = sum(4 if isinstance(piece, Id) else len(piece) for piece in pieces)
        await self.loop.settle()
        while True:
            before = len(self.raw) + len(self.received)
            self.read()
            if len(self.received) >= length or len(self.raw) + len(self.received) == before:
                break
            await self.loop.settle()
        found, at = self.received[:length], 0
        assert len(found) == length, f"expected {length} bytes, the client has written {found!r}"
        for piece in pieces:
            size = 4 if isinstance(piece, Id) else len(piece)
            part = found[at : at + size]
            if not isinstance(piece, Id):
                assert part == piece, f"at byte {at}: expected {piece[:80]!r}, got {part[:80]!r}"
            elif piece.name != "?":
                assert self.ids.setdefault(piece.name, part) == part, f"another id {piece.name}: {part!r}"
            at += size
        self.received = self.received[length:]

    async def on_expect(self, text: str) -> None:
        pieces, _ = read_bytes(tokens(text))
        await self.expect(pieces)

    async def on_cut(self, text: str) -> None:
        pieces, _ = read_bytes(tokens(text))
        data = b"".join(self.ids[p.name] if isinstance(p, Id) else p for p in pieces)
        await self.write(data[: self.cut_at])
        self.more_cuts = self.cut_at + 1 < len(data)
        await self.on_close("")

    async def on_close(self, _: str) -> None:
        await self.loop.settle()
        self.drop_peer()
        await self.loop.settle()

    async def on_closed(self, _: str) -> None:
        await self.loop.settle()
        assert self.read(), "the client has not closed the connection"
        assert not self.received, f"the client has written {self.received!r} as well"
        self.drop_peer()
        await self.loop.settle()

    async def on_refuse(self, _: str) -> None:
        assert self.listener is not None
        self.listener.close()
        self.listener = None
        os.unlink(self.path)

    async def on_listen(self, _: str) -> None:
        self.listen()

    async def on_advance(self, text: str) -> None:
        await self.loop.advance(int(text) / 1000)

    # the client

    async def on_do(self, text: str) -> None:
        label, _, operation = text.partition(" ")
        self.tasks[label] = self.loop.create_task(self.operate(label, operation))
        await self.loop.settle()

    async def on_cancel(self, label: str) -> None:
        self.tasks.pop(label).cancel()
        await self.loop.settle()

    async def operate(self, label: str, text: str) -> Any:
        name, _, rest = text.partition(" ")
        items = tokens(rest)
        if name == "connect":
            await self.connect(items[0]["text"] or "")
            return None
        client = self.client
        assert client is not None
        texts = [item["text"] for item in items if item["text"] is not None]
        words = [item["word"] for item in items]
        if name in ("send", "broadcast", "publish"):
            payload, _ = read_bytes(items[2:])
            return await getattr(client, name)(texts[0], b"".join(payload), QOS[words[0]])  # type: ignore[arg-type]
        if name == "publish_for":
            payload, _ = read_bytes(items[3:])
            return await client.publish_for(texts[0], texts[1], b"".join(payload), QOS[words[0]])  # type: ignore[arg-type]
        if name in ("add_filters", "remove_filters", "exclude", "unexclude"):
            return await getattr(client, name)(texts)
        if name == "subscribe":
            self.consumers[label] = await client.subscribe(texts, self.options([w for w in words if w]))
            return None
        if name == "unsubscribe":
            return await self.consumers[words[0]].unsubscribe()
        if name in ("call", "call0"):
            params, _ = read_bytes(items[2:])
            return await getattr(client, name)(texts[0], texts[1], b"".join(params))  # type: ignore[arg-type]
        if name == "notify":
            payload, _ = read_bytes(items[1:])
            return await client.notify(texts[0], b"".join(payload))  # type: ignore[arg-type]
        if name == "serve":
            await self.serve()
            return None
        if name == "cursor":
            params, _ = read_bytes(items[2:-1])
            value = [msgpack.unpackb(b"".join(params))] if params else []  # type: ignore[arg-type]
            self.cursors[label] = await client.cursor(object, texts[0], texts[1], *value, next=texts[-1])
            return None
        if name == "next":
            item = [item async for item in once(self.cursors[words[0]])]
            return msgpack.packb(item[0]) if item else "end"
        if name == "block":
            found = await self.cursors[words[0]].block(int(words[1]))
            return msgpack.packb(found) if found else "end"
        if name == "round_trip":
            await client.round_trip()
            return None
        assert name == "close", f"unknown operation {name}"
        return await client.close()

    async def connect(self, name: str) -> None:
        """Connects the client."""
        self.client = await elbus.connect(self.path, name, **self.settings)
        self.events = self.client.events()

    async def serve(self) -> None:
        """Starts the client's server of calls."""
        assert self.client is not None
        self.client.serve(self.answers)

    @staticmethod
    def options(words: list[str]) -> elbus.Options | None:
        chosen: dict[str, Any] = {}
        while words:
            word = words.pop(0)
            if word == "share":
                chosen["share"] = words.pop(0)
            elif word == "key":
                chosen["key"] = (words.pop(0), int(words.pop(0)))
            elif word == "every":
                chosen["every"] = int(words.pop(0)) / 1000
            else:
                assert word in ("latest", "lossy"), word
                chosen[word] = True
        return elbus.Options(**chosen) if chosen else None

    async def on_outcome(self, text: str) -> None:
        label, _, expected = text.partition(" ")
        await self.loop.settle()
        task = self.tasks.pop(label)
        assert task.done(), "the operation has not ended"
        error = task.exception()
        kind, _, rest = expected.partition(" ")
        if kind != "error":
            if error is not None:
                raise error
            assert kind in ("ok", "end")
            result = task.result()
            if kind == "end" or result == "end":
                assert (kind, result) == ("end", "end")
            else:
                assert (result or b"") == constant(rest), f"the result is {result!r}"
            return
        assert isinstance(error, elbus.Error), f"no error: {error!r}"
        words = rest.split(" ", 2)
        assert error.kind == words[0], f"{error.kind}: {error}"
        if words[0] == "rpc":
            assert isinstance(error, elbus.RpcError)
            data = constant(words[2]) if len(words) > 2 else b""
            assert (error.rpc_code, error.data) == (int(words[1]), data), error
        elif len(words) > 1:
            assert error.code == int(words[1], 16), error

    async def on_pending(self, label: str) -> None:
        await self.loop.settle()
        assert not self.tasks[label].done(), f"ended: {self.tasks[label]!r}"

    async def on_frame(self, text: str) -> None:
        label, kind, fields = (text + " ").split(" ", 2)
        await self.loop.settle()
        assert self.client is not None
        frame = await self.try_next(label)
        assert frame is not None, "no frame"
        found = {
            "sender": frame.sender.encode(),
            "topic": frame.topic.encode(),
            "payload": frame.payload,
        }
        assert frame.kind.name.lower() == kind, frame
        for key, value in self.fields(fields).items():
            if key in ("realtime", "missed"):
                assert getattr(frame, key) == int(value), (key, frame)
            else:
                assert found[key] == constant(value), (key, frame)

    async def try_next(self, label: str) -> elbus.Frame | None:
        """Returns the next frame of a consumer if there is one."""
        assert self.client is not None
        return self.client.frames.try_next() if label == "frames" else self.consumers[label].try_next()

    @staticmethod
    def fields(text: str) -> dict[str, str]:
        entries = (entry.strip().partition(" ") for entry in text.split(", "))
        return {key: value for key, _, value in entries}

    async def on_event(self, text: str) -> None:
        await self.loop.settle()
        assert self.events is not None
        event = self.events.try_next()
        kind, *words = text.split()
        assert type(event).__name__.lower() == kind, event
        if isinstance(event, elbus.Retrying):
            assert [event.attempt, round(event.after * 1000)] == [int(word) for word in words], event

    async def on_called(self, text: str) -> None:
        label, _, fields = text.partition(" ")
        await self.loop.settle()
        assert self.answers.calls, "no call"
        call, self.calls[label] = self.answers.calls.pop(0)
        expected = read_fields(fields)
        found = {"sender": call.sender.encode(), "method": call.method.encode(), "params": call.params}
        assert {key: found[key] for key in expected} == expected

    async def on_answer(self, text: str) -> None:
        label, outcome, rest = (text + "  ").split(" ", 2)
        answer = self.calls.pop(label)
        if outcome == "ok":
            answer.set_result(constant(rest))
        else:
            code, _, data = rest.strip().partition(" ")
            answer.set_exception(elbus.RpcError(int(code), constant(data)))
        await self.loop.settle()

    async def on_notified(self, text: str) -> None:
        await self.loop.settle()
        assert self.answers.notifications, "no notification"
        notification = self.answers.notifications.pop(0)
        expected = read_fields(text)
        found = {"sender": notification.sender.encode(), "payload": notification.payload}
        assert {key: found[key] for key in expected} == expected

    async def finish(self) -> None:
        """Checks that nothing else has happened."""
        await self.loop.settle()
        if self.peer is not None:
            self.read()
            assert not self.received + self.raw, f"the client has written {self.received!r} as well"
        assert not self.tasks, f"pending at the end: {self.tasks}"
        assert not self.answers.calls and not self.answers.notifications
        if self.client is None:
            return
        for label in ("frames", *self.consumers):
            assert await self.try_next(label) is None
        closing = self.loop.create_task(self.client.close())
        await self.loop.settle()
        if self.peer is not None:
            assert self.read(), "the client has not closed the connection"
            self.drop_peer()
        await self.loop.settle()
        await closing
        assert self.events is not None
        left = [event for event in iter(self.events.try_next, None) if not isinstance(event, elbus.Closed)]
        assert not left, left


async def once(cursor: elbus.Cursor[Any]) -> Any:
    """Iterates at most one item."""
    with contextlib.suppress(StopAsyncIteration):
        yield await cursor.__anext__()
