"""A received message, broadcast or publication. Owns its fields; never parses."""

from __future__ import annotations

import enum


class FrameKind(enum.IntEnum):
    """The kind of a received frame."""

    PUBLISH = 0x01
    MESSAGE = 0x12
    BROADCAST = 0x13


class Frame:
    """A received message, broadcast or publication.

    ``kind`` is its :class:`FrameKind`, ``sender`` the name of the client that has sent it, ``topic`` the
    topic of a publication, else empty, ``payload`` the bytes. ``realtime`` is whether it was sent as
    real-time. ``missed`` counts frames that were dropped right before it: by the client because its consumer
    was slow, or by the broker because of the options latest, every or lossy.
    """

    __slots__ = ("kind", "missed", "payload", "realtime", "sender", "topic")

    kind: FrameKind
    sender: str
    topic: str
    payload: bytes
    realtime: bool
    missed: int

    def __init__(
        self,
        kind: FrameKind,
        sender: str,
        payload: bytes,
        topic: str = "",
        realtime: bool = False,
        missed: int = 0,
    ) -> None:
        self.kind = kind
        self.sender = sender
        self.topic = topic
        self.payload = payload
        self.realtime = realtime
        self.missed = missed

    def text(self) -> str:
        """Returns the payload as text; bytes that are not UTF-8 are replaced."""
        return self.payload.decode("utf-8", "replace")

    def after_gap(self, count: int) -> Frame:
        """Returns the frame with a larger ``missed``; other consumers may have this one."""
        return Frame(self.kind, self.sender, self.payload, self.topic, self.realtime, self.missed + count)

    def __repr__(self) -> str:
        shown = self.payload if len(self.payload) <= 64 else self.payload[:64] + b"..."
        topic = f" to {self.topic!r}" if self.kind is FrameKind.PUBLISH else ""
        return f"<{self.kind.name.lower()} from {self.sender!r}{topic}: {shown!r}>"
