"""The thread of the blocking clients. Owns its event loop; knows no client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from elbus_client.errors import WrongThreadError

T = TypeVar("T")


class Runtime:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="elbus-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt):
                # of a method or a conversion, whose task reports it: other clients need the thread
                continue

    def check_thread(self) -> None:
        """Raises if the calling thread or process cannot wait for the loop."""
        if self.pid != os.getpid():
            raise WrongThreadError(
                "the client belongs to the process before the fork: connect a new one here"
            )
        if threading.current_thread() is self._thread:
            raise WrongThreadError(
                "a blocking function was called on the thread that serves the blocking clients: "
                "call it in a thread, or await the asyncio client"
            )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop and returns its outcome. An interrupt cancels it."""
        try:
            self.check_thread()
        except WrongThreadError:
            coroutine.close()
            raise
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            future.cancel()
            raise


_lock = threading.Lock()
_runtime: Runtime | None = None


def runtime() -> Runtime:
    """Returns the runtime of this process; the first call starts it."""
    global _runtime
    if _runtime is None or _runtime.pid != os.getpid():
        with _lock:
            if _runtime is None or _runtime.pid != os.getpid():
                _runtime = Runtime()
    return _runtime


def _forget_in_fork() -> None:
    # the thread does not exist in the child; a lock that another thread held would never be released
    global _runtime, _lock
    _runtime, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
