"""The server's side of cursors. Owns the open cursors of a service and their expiry; never calls."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Union

from elbus_client.rpc import msgpack
from elbus_client.rpc.errors import RpcError
from elbus_client.wire.constants import SECONDARY_SEPARATOR

#: Default time after which an unused cursor expires, in seconds.
LIFETIME = 60.0
#: Limit of open cursors of one service.
MAX_CURSORS = 10_000
#: Limit of those that one client has opened, with its secondary clients: others must have some left.
MAX_CALLER_CURSORS = 1_000
#: Limit of items in one block.
MAX_BLOCK_ITEMS = 100_000

Items = Union[Iterator[Any], AsyncIterator[Any]]


class _Open:
    __slots__ = ("items", "last_used", "lock", "owner")

    def __init__(self, owner: str, items: Items) -> None:
        self.owner = owner
        self.items = items
        self.last_used = time.monotonic()
        self.lock = asyncio.Lock()


def _primary_of(name: str) -> str:
    return name.partition(SECONDARY_SEPARATOR)[0]


class ServerCursors:
    """The open cursors of a service."""

    def __init__(self) -> None:
        self.lifetime = LIFETIME
        #: Items of ordinary iterators are produced in threads.
        self.in_threads = False
        self._open: dict[bytes, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, owner: str, items: Items) -> bytes:
        """Adds a cursor. Returns the result for its owner."""
        self._expire()
        if len(self._open) >= MAX_CURSORS:
            raise RpcError.internal(f"limit of {MAX_CURSORS} open cursors reached")
        primary = _primary_of(owner)
        if sum(_primary_of(cursor.owner) == primary for cursor in self._open.values()) >= MAX_CALLER_CURSORS:
            raise RpcError.internal(f"limit of {MAX_CALLER_CURSORS} open cursors of one client reached")
        token = uuid.uuid4().bytes
        self._open[token] = _Open(owner, items)
        return msgpack.encode({"u": token}, "a cursor")

    async def next(self, caller: str, params: bytes) -> bytes:
        """Returns the next item, or a block of items. No bytes are the end."""
        try:
            wanted = msgpack.decode(params, "the parameters")
            token, count = wanted["u"], wanted.get("n")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise RpcError.invalid_params("expected {u: token} or {u: token, n: count}") from None
        number = 1 if count is None else count
        if type(number) is not int or not 0 <= number <= MAX_BLOCK_ITEMS:
            raise RpcError.invalid_params(f"block of {number!r} items exceeds the limit of {MAX_BLOCK_ITEMS}")
        self._expire()
        if isinstance(token, str):
            token = token.encode()
        cursor = self._open.get(token) if isinstance(token, bytes) else None
        if cursor is None or cursor.owner != caller:
            raise RpcError.not_found()
        cursor.last_used = time.monotonic()
        async with cursor.lock:
            items = await self._fetch(token, cursor, number)
        cursor.last_used = time.monotonic()
        if count is not None:
            return msgpack.encode(items, "a block of items")
        return msgpack.encode(items[0], "an item") if items else b""

    async def _fetch(self, token: bytes, cursor: _Open, number: int) -> list[Any]:
        items: Any = cursor.items
        if not hasattr(items, "__anext__"):
            ordinary: Iterator[Any] = items

            def take() -> list[Any]:
                return list(itertools.islice(ordinary, number))

            found = await asyncio.to_thread(take) if self.in_threads else take()
        else:
            found = list[Any]()
            while len(found) < number:
                try:
                    found.append(await items.__anext__())
                except StopAsyncIteration:
                    break
        if len(found) < number:
            self._open.pop(token, None)
        return found

    def _expire(self) -> None:
        now = time.monotonic()
        for token in [t for t, cursor in self._open.items() if now - cursor.last_used > self.lifetime]:
            del self._open[token]
