"""All conversations of protocol/conformance with the blocking client, in virtual time: each operation runs in
a thread, the broker in the event loop of the blocking clients. Conversations that cancel are left out:
nothing cancels a thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from conversation_runner import Runner
from data import Conversation, conversations
from virtual_loop import VirtualLoop

import elbus_client as elbus
from elbus_client import blocking
from elbus_client.blocking import client as blocking_client
from elbus_client.blocking import serving
from elbus_client.blocking.runtime import Runtime

END = object()


class VirtualRuntime(Runtime):
    """The runtime of blocking clients with a loop in virtual time, which runs in the thread of the test."""

    def __init__(self, loop: VirtualLoop) -> None:
        import os

        self.pid = os.getpid()
        self.loop = loop
        self._thread = threading.current_thread()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop = self.loop
        assert isinstance(loop, VirtualLoop)
        self.check_thread()
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        # it runs again when the outcome is known, not when the thread is scheduled
        future.add_done_callback(lambda _: loop.count_threads(+1))
        loop.count_threads(-1)
        return future.result()


class CountedThreads(concurrent.futures.Executor):
    """A thread for each method, which is counted while it runs."""

    loop: VirtualLoop

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:  # type: ignore[override]
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.loop.count_threads(+1)

        def run() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
            self.loop.count_threads(-1)

        threading.Thread(target=run, daemon=True).start()
        return future


class InThreads:
    """A blocking object whose methods are awaited: each runs in a thread."""

    def __init__(self, loop: VirtualLoop, inner: Any) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        async def call(*arguments: Any, **settings: Any) -> Any:
            result = await self.run(lambda: found(*arguments, **settings))
            wrapped = isinstance(result, (blocking.Subscription, blocking.Cursor))
            return InThreads(self._loop, result) if wrapped else result

        return call

    async def __anext__(self) -> Any:
        item = await self.run(lambda: next(self._inner, END))
        if item is END:
            raise StopAsyncIteration
        return item

    async def run(self, function: Callable[[], Any]) -> Any:
        """Runs a function in a thread."""
        loop = self._loop
        outcome: asyncio.Future[Any] = loop.create_future()

        def end(result: Any, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        def run() -> None:
            try:
                result, error = function(), None
            except BaseException as raised:
                result, error = None, raised
            loop.call_soon_threadsafe(end, result, error)
            loop.count_threads(-1)

        loop.count_threads(+1)
        threading.Thread(target=run, daemon=True).start()
        return await outcome


class BlockingRunner(Runner):
    """Runs a conversation with the blocking client."""

    async def connect(self, name: str) -> None:
        threads = InThreads(self.loop, None)
        client = await threads.run(lambda: blocking.connect(self.path, name, **self.settings))
        self.client = InThreads(self.loop, client)  # type: ignore[assignment]
        self.events = client.core.events.listen(self.loop, client.core.ended is not None)

    async def serve(self) -> None:
        client: Any = self.client
        await client.serve(self.answers)

    async def try_next(self, label: str) -> elbus.Frame | None:
        client: Any = self.client
        consumers: dict[str, Any] = self.consumers  # type: ignore[assignment]
        consumer = InThreads(self.loop, client.frames) if label == "frames" else consumers[label]
        frame: elbus.Frame | None = await consumer.try_next()
        return frame


CONVERSATIONS = [c for c in conversations() if not any(line.startswith("cancel ") for _, line in c.lines)]


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda c: f"{c.file[:-4]}: {c.name}")
def test_conversation(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_at, more = 0, True
    while more:
        loop = VirtualLoop()
        runtime = VirtualRuntime(loop)
        monkeypatch.setattr(blocking_client, "runtime", lambda runtime=runtime: runtime)
        monkeypatch.setattr(CountedThreads, "loop", loop, raising=False)
        monkeypatch.setattr(serving, "ThreadPoolExecutor", CountedThreads)
        try:
            runner = BlockingRunner(loop, conversation, False, cut_at)
            loop.run_until_complete(runner.run())
        finally:
            loop.close()
        cut_at, more = cut_at + 1, runner.more_cuts


def test_most_conversations_run() -> None:
    assert len(CONVERSATIONS) > 60
