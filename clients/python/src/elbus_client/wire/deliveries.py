"""Frames from broker to client, section 4. Owns their parsing; never decides who gets a frame.

The parser runs for every received frame, so it makes few calls: each frame is routed where it is parsed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

from elbus_client.frame import Frame, FrameKind

HEADER_BYTES = 6
#: A received frame has sender and topic besides the payload that ``max_frame_bytes`` is about.
NAMES_BYTES = 2 * 64 * 1024

#: Limits of the cache of senders.
_CACHED_TEXTS = 4096
_CACHED_TEXT_BYTES = 256


_UNPACK = cast("Callable[[bytes, int], tuple[int, int, int]]", struct.Struct("<BIB").unpack_from)


class FrameError(ValueError):
    """The broker sent an invalid frame; ``args[0]`` is what is wrong, as in the conformance data."""


class Queue(Protocol):
    """A consumer of frames: what arrives in one read is collected in ``incoming``."""

    incoming: list[Frame]


Q = TypeVar("Q", bound=Queue)


class Router(Protocol[Q]):
    """Decides who gets a frame."""

    #: The text of each known topic and the consumers of its publications.
    topics: dict[bytes, tuple[str, tuple[Q, ...]]]
    #: Consumer of everything without another one.
    frames: Q
    #: Consumers that have received something in this read.
    touched: list[Q]

    def add_topic(self, topic: bytes) -> tuple[str, tuple[Q, ...]]:
        """Returns the entry of a topic that is not in ``topics``."""
        ...

    def on_rpc(self, frame: Frame) -> None:
        """Receives a message whose payload begins like RPC."""
        ...

    def on_report(self, frame: Frame) -> None:
        """Receives a publication to a topic without consumers."""
        ...


def decode_text(raw: bytes, field: str) -> str:
    """Returns a text of a frame; raises :class:`FrameError` if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise FrameError(f"not-utf8 {field}") from None


class DeliveryParser(Generic[Q]):
    """Parses received bytes and routes the frames."""

    def __init__(self, max_frame_bytes: int, router: Router[Q], on_ack: Callable[[int, int], None]) -> None:
        self.max_body = max_frame_bytes + NAMES_BYTES
        self._router = router
        self._on_ack = on_ack
        self._senders: dict[bytes, str] = {}

    def parse(
        self,
        data: bytes,
        _unpack: Callable[[bytes, int], tuple[int, int, int]] = _UNPACK,
        _new: Callable[[type[Frame]], Frame] = object.__new__,
        _message: FrameKind = FrameKind.MESSAGE,
        _broadcast: FrameKind = FrameKind.BROADCAST,
        _publish: FrameKind = FrameKind.PUBLISH,
    ) -> int:
        """Parses complete frames. Returns how many bytes were used; raises :class:`FrameError`.

        Frames before an invalid one are routed.
        """
        router, on_ack, senders = self._router, self._on_ack, self._senders
        topics, touched, frames = router.topics, router.touched, router.frames
        incoming = frames.incoming
        if not incoming:
            touched.append(frames)
        at, end = 0, len(data)
        kind = body = stop = 0
        payload = b""
        try:
            while end - at >= HEADER_BYTES:
                kind, length, realtime = _unpack(data, at)
                if kind == 0xFE:
                    at += HEADER_BYTES
                    on_ack(length, realtime)
                    continue
                body = at + HEADER_BYTES
                stop = body + length
                if stop > end or (kind != 0x01 and kind != 0x12 and kind != 0x13):
                    if kind == 0x00:
                        at = body
                        continue
                    if kind not in (0x01, 0x12, 0x13):
                        raise FrameError("unknown-kind")
                    if length > self.max_body:
                        raise FrameError("too-long")
                    break
                if length > self.max_body:
                    raise FrameError("too-long")
                frame = _new(Frame)
                if kind == 0x01:
                    sender, topic, frame.payload = data[body:stop].split(b"\0", 2)
                    frame.kind = _publish
                    entry = topics.get(topic)
                    if entry is None:
                        entry = router.add_topic(topic)
                    frame.topic, queues = entry
                else:
                    sender, payload = data[body:stop].split(b"\0", 1)
                    frame.kind = _message if kind == 0x12 else _broadcast
                    frame.topic = ""
                    frame.payload = payload
                    queues = None
                name = senders.get(sender)
                frame.sender = self._add_sender(sender) if name is None else name
                frame.realtime = realtime != 0
                frame.missed = 0
                at = stop
                if queues is None:
                    if payload and payload[0] < 0x13 and kind == 0x12:
                        router.on_rpc(frame)
                    else:
                        incoming.append(frame)
                else:
                    for queue in queues:
                        if not queue.incoming:
                            touched.append(queue)
                        queue.incoming.append(frame)
                    if not queues:
                        router.on_report(frame)
        except FrameError:
            raise
        except ValueError:
            # the split has found too few parts
            field = "topic" if kind == 0x01 and b"\0" in data[body:stop] else "sender"
            if field == "topic":
                decode_text(data[body:stop].split(b"\0", 1)[0], "sender")
            raise FrameError(f"missing-nul {field}") from None
        return at

    def parse_one(self, data: memoryview) -> None:
        """Parses one complete frame that is long: its payload is copied once. Raises :class:`FrameError`."""
        router = self._router
        kind, _, realtime = _UNPACK(bytes(data[:HEADER_BYTES]), 0)
        names = bytes(data[HEADER_BYTES : HEADER_BYTES + NAMES_BYTES + 2])
        parts = names.split(b"\0", 2 if kind == 0x01 else 1)
        sender = self._senders.get(parts[0]) or decode_text(parts[0], "sender")
        if len(parts) < (3 if kind == 0x01 else 2):
            raise FrameError("missing-nul " + ("sender" if len(parts) == 1 else "topic"))
        begin = HEADER_BYTES + len(parts[0]) + 1
        queues: tuple[Q, ...] = (router.frames,)
        topic = ""
        if kind == 0x01:
            topic, queues = router.topics.get(parts[1]) or router.add_topic(parts[1])
            begin += len(parts[1]) + 1
        frame = Frame(FrameKind(kind), sender, bytes(data[begin:]), topic, realtime != 0)
        if kind == 0x12 and frame.payload and frame.payload[0] < 0x13:
            router.on_rpc(frame)
            return
        if not queues:
            router.on_report(frame)
        for queue in queues:
            if not queue.incoming:
                router.touched.append(queue)
            queue.incoming.append(frame)

    def missing(self, head: bytes) -> int:
        """Returns how many bytes in total complete the frame that begins with ``head``, or its header."""
        if len(head) < HEADER_BYTES:
            return HEADER_BYTES
        return HEADER_BYTES + int.from_bytes(head[1:5], "little")

    def _add_sender(self, raw: bytes) -> str:
        text = decode_text(raw, "sender")
        if len(raw) <= _CACHED_TEXT_BYTES:
            if len(self._senders) >= _CACHED_TEXTS:
                self._senders.clear()
            self._senders[raw] = text
        return text
