"""Settings of a client and their defaults. Never connects."""

from __future__ import annotations

import enum
import math
import random
import ssl
from dataclasses import dataclass

from elbus_client.errors import ArgumentError


class Overflow(enum.Enum):
    """What happens to received frames when more than ``queue_bytes`` are queued for their consumer."""

    #: The connection is not read until the consumer has caught up; the broker then holds the senders. A
    #: consumer that takes nothing for ``hold_limit`` loses further frames until it continues; they are
    #: counted.
    BLOCK = "block"
    #: New frames are dropped; the next queued frame reports how many (``Frame.missed``).
    DROP_NEWEST = "drop_newest"
    #: The oldest frames are dropped; the frame behind them reports how many.
    DROP_OLDEST = "drop_oldest"


def number(name: str, value: object, minimum: float, *, strict: bool = False) -> float:
    """Returns a number that is not below the minimum, or with ``strict`` above it; raises otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise ArgumentError(f"{name} must be a number, not {value!r}")
    if value < minimum or (strict and value == minimum):
        raise ArgumentError(
            f"{name} must be {'more than' if strict else 'at least'} {minimum:g}, not {value!r}"
        )
    return value


@dataclass(frozen=True)
class Backoff:
    """The delays between attempts to reconnect, in seconds; for the setting ``reconnect``.

    Each delay is twice the one before, at most ``max_delay``. ``jitter`` is its random part, from 0 to 1: it
    spreads the attempts of many clients. After ``max_attempts`` consecutive failures the client ends.

    >>> Backoff(jitter=0).delay(3)
    0.4
    """

    first_delay: float = 0.1
    max_delay: float = 10.0
    jitter: float = 0.5
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        number("first_delay", self.first_delay, 0)
        number("max_delay", self.max_delay, 0)
        if number("jitter", self.jitter, 0) > 1:
            raise ArgumentError(f"jitter must be at most 1, not {self.jitter!r}")
        if self.max_attempts is not None:
            number("max_attempts", self.max_attempts, 0)

    def delay(self, attempt: int) -> float | None:
        """Returns the delay before an attempt, which counts from 1; ``None`` if it exceeds the limit."""
        if self.max_attempts is not None and attempt > self.max_attempts:
            return None
        delay = min(self.first_delay * 2.0 ** min(attempt - 1, 64), self.max_delay)
        return delay * (1.0 - self.jitter * random.random())


@dataclass(frozen=True)
class Settings:
    """Settings of one client; the parameters of ``connect``, which documents them."""

    timeout: float = 5.0
    ping_interval: float = 1.0
    queue_bytes: int = 8 << 20
    max_frame_bytes: int = 256 << 20
    overflow: Overflow = Overflow.BLOCK
    hold_limit: float = 3.0
    queue_calls: bool = False
    reconnect: Backoff | None = None
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        number("timeout", self.timeout, 0, strict=True)
        number("ping_interval", self.ping_interval, 0, strict=True)
        number("queue_bytes", self.queue_bytes, 0)
        number("max_frame_bytes", self.max_frame_bytes, 0)
        number("hold_limit", self.hold_limit, 0)
        for name, kind, expected in (
            ("overflow", Overflow, "an Overflow"),
            ("reconnect", (Backoff, type(None)), "a Backoff or None"),
            ("tls", (ssl.SSLContext, type(None)), "an ssl.SSLContext or None"),
        ):
            value: object = getattr(self, name)
            if not isinstance(value, kind):
                raise ArgumentError(f"{name} must be {expected}, not {value!r}")
