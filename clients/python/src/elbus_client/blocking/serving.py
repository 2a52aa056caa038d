"""Serving calls without asyncio: methods run in threads. Owns the threads of a server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from elbus_client.blocking.runtime import Runtime
from elbus_client.connection.core import Core
from elbus_client.errors import ArgumentError
from elbus_client.rpc.service import Call, Contained, Notification, Service, contained
from elbus_client.rpc.serving import Handler
from elbus_client.rpc.serving import Serving as AsyncServing


class Threaded:
    """Runs the methods of a handler in threads, and its coroutines in the event loop."""

    def __init__(self, handler: Handler, threads: int) -> None:
        self._handler = handler
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="elbus-method")

    async def handle_call(self, call: Call) -> bytes:
        """Runs a method in a thread."""
        result: bytes = await self._run(self._handler.handle_call, call)
        return result

    async def handle_notification(self, notification: Notification) -> None:
        """Runs the receiver of notifications in a thread."""
        await self._run(self._handler.handle_notification, notification)

    async def _run(self, function: Callable[[Any], Any], argument: object) -> Any:
        try:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self.pool, contained, function, argument)
            return await result if inspect.isawaitable(result) else result
        except (SystemExit, KeyboardInterrupt) as error:
            # it would end the thread of all clients
            raise Contained from error


class Serving:
    """A running server of calls; from ``Client.serve``. A context manager, which drains it."""

    def __init__(self, runtime: Runtime, core: Core, handler: Handler, threads: int) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"threads must be a number of threads, not {threads!r}")
        self._runtime = runtime
        if isinstance(handler, Service):
            handler.cursors.in_threads = True
        self._threaded = Threaded(handler, threads) if hasattr(handler, "handle_call") else handler
        self._serving = runtime.run(self._start(core))

    async def _start(self, core: Core) -> AsyncServing:
        return AsyncServing(core, self._threaded)

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drain()

    def stop(self) -> None:
        """Stops accepting calls and cancels those that run in the event loop. Running threads are not
        stopped.
        """
        self._runtime.run(self._stop())

    async def _stop(self) -> None:
        self._serving.stop()
        self._shutdown()

    def drain(self) -> None:
        """Stops accepting calls and waits until all that have arrived are answered, within the client's
        timeout.
        """
        self._runtime.run(self._serving.drain())
        self._shutdown()

    def wait(self) -> None:
        """Waits until the server ends, because it was stopped or the client has ended."""
        self._runtime.run(self._serving.wait())

    def _shutdown(self) -> None:
        if isinstance(self._threaded, Threaded):
            self._threaded.pool.shutdown(wait=False, cancel_futures=True)
