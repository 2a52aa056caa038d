"""Calling methods of other clients. Owns the requests and the conversion of their outcome; never serves."""

from __future__ import annotations

import asyncio
import enum
from typing import Any, Final, TypeVar

from elbus_client.connection.core import MESSAGE_FLAGS, Core
from elbus_client.errors import ArgumentError, NotRegisteredError
from elbus_client.rpc import msgpack
from elbus_client.rpc.convert import convert
from elbus_client.rpc.errors import RpcError
from elbus_client.rpc.features import decode_features
from elbus_client.settings import number
from elbus_client.wire import rpc
from elbus_client.wire.constants import BROKER, MESSAGE, REALTIME
from elbus_client.wire.requests import HEADER_BYTES, Payload, encode_payload, encode_text

R = TypeVar("R")


class NoParams(enum.Enum):
    """The default of parameters: none are sent. ``None`` is sent as nil."""

    NO_PARAMS = "NO_PARAMS"


NO_PARAMS: Final = NoParams.NO_PARAMS


async def call(
    core: Core, target: str, method: str, params: Payload, timeout: float | None, realtime: bool
) -> bytes:
    """Calls a method and returns the bytes of the result."""
    head, name, payload = encode_text(target, "target"), encode_text(method, "method"), _encode_params(params)
    if timeout is not None:
        number("timeout", timeout, 0, strict=True)
    core.check_size(len(head), len(name) + 5 + len(payload))
    await core.wait_for_space(len(head) + len(name) + 5 + len(payload) + HEADER_BYTES)
    calls = core.calls
    id, future = calls.add(target, method, timeout)

    def on_ack(code: int) -> None:
        if code != 0x01:
            calls.refuse(id, code)

    op_id: int | None = None
    try:
        flag = MESSAGE | REALTIME if realtime else MESSAGE
        op_id = core.send_with_callback(flag, (head, rpc.encode_request_head(id, name), payload), on_ack)
        if core.flow.paused:
            core.flow.update()
        result = await future
        assert isinstance(result, bytes)
        return result
    finally:
        calls.forget(id)
        if op_id is not None:
            core.forget_callback(op_id)


def _encode_params(params: object) -> bytes:
    """Returns parameters as bytes; raises if they have another type."""
    try:
        return encode_payload(params)
    except ArgumentError:
        raise ArgumentError(
            f"the parameters must be bytes, not {type(params).__name__}: call_as converts values; for call0 "
            "encode them first, for example with msgpack.packb"
        ) from None


async def call_as(
    core: Core,
    result: Any,
    target: str,
    method: str,
    params: Any,
    timeout: float | None,
    realtime: bool,
) -> Any:
    """Calls a method with typed parameters and result."""
    if isinstance(result, str):
        raise ArgumentError(
            f"the first argument of call_as is the type of the result, for example int, not {result!r}"
        )
    what = f"{method!r} of {target!r}"
    payload = b"" if params is NO_PARAMS else msgpack.encode(params, f"the parameters of {what}")
    data = await call(core, target, method, payload, timeout, realtime)
    value = msgpack.decode(data, f"the result of {what}") if data else None
    return convert(value, result, f"the result of {what}")


async def call0(core: Core, target: str, method: str, params: Payload, qos: int) -> None:
    """Calls a method without a reply."""
    head = rpc.encode_request_head(rpc.NO_REPLY, encode_text(method, "method"))
    pending = core.send(MESSAGE_FLAGS, qos, target, head + _encode_params(params))
    if pending is not None:
        await pending


async def notify(core: Core, target: str, payload: Payload, qos: int) -> None:
    """Sends a notification."""
    pending = core.send(MESSAGE_FLAGS, qos, target, b"\x00" + encode_payload(payload))
    if pending is not None:
        await pending


async def features(core: Core) -> frozenset[str]:
    """Returns the options of subscriptions that the broker knows; asks it once for each connection."""
    task = core.features
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
        task = core.features = core.loop.create_task(_ask_features(core))
        # without a waiter, for example after a cancellation, the error is of no interest
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def _ask_features(core: Core) -> frozenset[str]:
    try:
        return decode_features(await call(core, BROKER, "features", b"", None, False))
    except (RpcError, NotRegisteredError):
        return frozenset()


def check_callable(function: object, what: str) -> None:
    """Raises if something is not callable."""
    if not callable(function):
        raise ArgumentError(f"{what} must be a function, not {type(function).__name__}")
