"""Cursors: long results that are fetched in parts (protocol section 7). Owns the caller's side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from elbus_client.connection.core import Core
from elbus_client.errors import ArgumentError, ConversionError
from elbus_client.rpc import calling, msgpack
from elbus_client.rpc.convert import convert

R = TypeVar("R")


class Cursor(Generic[R]):
    """A long result that is fetched in parts; from ``Client.cursor``. An async iterator."""

    def __init__(self, core: Core, item: Any, target: str, next: str, token: bytes | str) -> None:
        self._core = core
        self._item = item
        self._target = target
        self._next = next
        self._token = token
        self._ended = False

    async def __aenter__(self) -> Cursor[R]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True

    def __aiter__(self) -> Cursor[R]:
        return self

    async def __anext__(self) -> R:
        found = await self.fetch()
        if not found:
            raise StopAsyncIteration
        return found[0]

    async def next(self) -> R | None:
        """Returns the next item; ``None`` at the end. Iterate instead if an item can be ``None``.

        Raises as ``Client.call_as``; :class:`RpcError` with -32001 if the server has dropped the cursor.
        """
        found = await self.fetch()
        return found[0] if found else None

    async def fetch(self) -> list[R]:
        """Returns the next item in a list; an empty one at the end."""
        if self._ended:
            return []
        what = f"an item of {self._next!r} of {self._target!r}"
        params = msgpack.encode({"u": self._token}, "the token of a cursor")
        data = await calling.call(self._core, self._target, self._next, params, None, False)
        if not data:
            self._ended = True
            return []
        return [convert(msgpack.decode(data, what), self._item, what)]

    async def block(self, count: int) -> list[R]:
        """Returns the next ``count`` items; fewer at the end, and none after it. Raises as :meth:`next`."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"count must be a number of items, not {count!r}")
        if self._ended or count == 0:
            return []
        items: list[Any] = await calling.call_as(
            self._core, list, self._target, self._next, {"u": self._token, "n": count}, None, False
        )
        self._ended = len(items) < count
        what = f"an item of {self._next!r} of {self._target!r}"
        return [convert(item, self._item, what) for item in items]


def iter_cursor(cursor: Cursor[R]) -> AsyncIterator[R]:
    """Returns the iterator of a cursor."""
    return cursor


async def open_cursor(core: Core, item: Any, target: str, method: str, params: Any, next: str) -> Cursor[Any]:
    """Calls the method that opens a cursor."""
    opened: dict[Any, Any] = await calling.call_as(core, dict, target, method, params, None, False)
    token = opened.get("u")
    if not isinstance(token, (bytes, str)):
        raise ConversionError(f"the result of {method!r} of {target!r} is not a cursor: it has no 'u'")
    return Cursor(core, item, target, next, token)
