"""Runs coroutines of tests. Owns the loops, and the check that nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any

#: Limit of anything that a test waits for, in seconds.
DEADLINE = 20.0


Test = Callable[..., Coroutine[Any, Any, None]]


def run(function: Test) -> Callable[..., None]:
    """Turns a coroutine into a test, which fails if it leaves a task behind or reports an unhandled error."""
    return run_within(4 * DEADLINE)(function)


def run_within(limit: float) -> Callable[[Test], Callable[..., None]]:
    """As :func:`run`, with a limit in seconds."""

    def decorate(function: Test) -> Callable[..., None]:
        @functools.wraps(function)
        def test(*args: Any, **kwargs: Any) -> None:
            reported: list[dict[str, Any]] = []

            async def main() -> None:
                loop = asyncio.get_running_loop()
                loop.set_exception_handler(lambda _, context: reported.append(context))
                await asyncio.wait_for(function(*args, **kwargs), limit)
                gc.collect()
                for _ in range(10):
                    await asyncio.sleep(0)
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert not left, left

            asyncio.run(main())
            assert not reported, reported

        return test

    return decorate


async def soon(awaitable: Any) -> Any:
    """Awaits something that must happen before the deadline."""
    return await asyncio.wait_for(awaitable, DEADLINE)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds."""
    for _ in range(int(DEADLINE / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")
