"""Calls that wait for their reply. Owns call ids and outcomes; never sends."""

from __future__ import annotations

import asyncio

from elbus_client.errors import Error, TimedOutError, from_code
from elbus_client.receive.deadlines import Deadlines, Pending
from elbus_client.rpc.errors import RpcError

_IDS = 0xFFFFFFFF


class PendingCalls:
    """The calls of one client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: float) -> None:
        self._loop = loop
        self._after = after
        self._deadlines = Deadlines(loop, after)
        #: Calls with a time limit of their own, and their timers.
        self._others: dict[int, tuple[Pending, asyncio.TimerHandle | None]] = {}
        self._last_id = 0
        self._wrapped = False

    def __len__(self) -> int:
        return len(self._deadlines.entries) + len(self._others)

    def add(self, target: str, method: str, after: float | None) -> tuple[int, asyncio.Future[object]]:
        """Registers a call to a target. The future ends with the reply."""
        id = self._last_id
        while True:
            id = (id + 1) & _IDS
            if id == 0:
                self._wrapped = True
            elif id not in self._deadlines.entries and id not in self._others:
                break
        self._last_id = id
        operation = f"call of {method!r} of"
        if after is None or after == self._after:
            return id, self._deadlines.add(id, operation, target)
        future: asyncio.Future[object] = self._loop.create_future()
        timer = None
        if after != float("inf"):
            timer = self._loop.call_later(after, self._expire, id, after)
        self._others[id] = (Pending(future, 0.0, operation, target), timer)
        return id, future

    def _expire(self, id: int, after: float) -> None:
        call = self.forget(id)
        if call is not None and not call.future.done():
            call.future.set_exception(TimedOutError(f"{call.operation} {call.target!r}", after))

    def forget(self, id: int) -> Pending | None:
        """Removes a call."""
        other = self._others.pop(id, None)
        if other is None:
            return self._deadlines.pop(id)
        if other[1] is not None:
            other[1].cancel()
        return other[0]

    def _get(self, id: int) -> Pending | None:
        entry = self._deadlines.entries.get(id)
        if entry is None:
            other = self._others.get(id)
            entry = other[0] if other else None
        return entry

    def complete(self, id: int, sender: str, result: bytes) -> bool | None:
        """Completes a call with a reply. Returns ``False`` if this client has not made it, ``None`` if
        nothing waits for it any more.
        """
        call = self._get(id)
        if call is None or call.target != sender:
            return self._was_issued(id)
        self.forget(id)
        if not call.future.done():
            call.future.set_result(result)
        return True

    def fail(self, id: int, sender: str, code: int, data: bytes) -> bool | None:
        """Completes a call with an error of its method; returns as :meth:`complete`."""
        call = self._get(id)
        if call is None or call.target != sender:
            return self._was_issued(id)
        self.forget(id)
        if not call.future.done():
            call.future.set_exception(RpcError(code, data))
        return True

    def refuse(self, id: int, code: int) -> None:
        """Fails a call that the broker has not delivered."""
        call = self.forget(id)
        if call is not None and not call.future.done():
            call.future.set_exception(from_code(code, "call to", call.target))

    def fail_all(self, error: Error) -> None:
        """Fails all calls."""
        self._deadlines.fail_all(error)
        others, self._others = self._others, {}
        for call, timer in others.values():
            if timer is not None:
                timer.cancel()
            if not call.future.done():
                call.future.set_exception(error.fresh())

    def _was_issued(self, id: int) -> bool | None:
        return None if id != 0 and (self._wrapped or id <= self._last_id) else False
