"""An operation that returns something to be closed. Owns the three ways to use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar


class AsyncCloseable(Protocol):
    """Something that ``async with`` closes."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


T = TypeVar("T", bound=AsyncCloseable)
I = TypeVar("I", covariant=True)  # noqa: E741


class Opening(Coroutine[Any, Any, T], Generic[T]):
    """Await it for the opened object, or use it with ``async with``, which closes the object at the end."""

    def __init__(self, opening: Coroutine[Any, Any, T]) -> None:
        self._opening = opening
        self._opened: T | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Says what to do when something is used that was not opened."""
            raise AttributeError(
                f"it is not open, so it has no {name!r}: await it first, or use it with async with"
            )

    def send(self, value: Any) -> Any:
        return self._opening.send(value)

    def throw(self, *args: Any) -> Any:
        return self._opening.throw(*args)

    def close(self) -> None:
        self._opening.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._opening.__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._opening
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.__aexit__(kind, error, traceback)


class AsyncIterable(AsyncCloseable, Protocol[I]):
    """Something that is iterated and closed."""

    def __aiter__(self) -> AsyncIterator[I]: ...


class IterableOpening(Opening[T], Generic[T, I]):
    """As :class:`Opening`, and ``async for`` opens, iterates and closes."""

    def __init__(self, opening: Coroutine[Any, Any, T], iterate: Callable[[T], AsyncIterator[I]]) -> None:
        super().__init__(opening)
        self._iterate = iterate

    async def __aiter__(self) -> AsyncIterator[I]:
        async with self as opened:
            async for item in self._iterate(opened):
                yield item
