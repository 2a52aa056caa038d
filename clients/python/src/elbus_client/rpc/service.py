"""Methods as functions. Owns their names and the conversion of parameters and results; never concurrency."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, TypeVar, Union, overload

from elbus_client.errors import ArgumentError, ConversionError
from elbus_client.frame import Frame
from elbus_client.rpc import msgpack
from elbus_client.rpc.calling import check_callable
from elbus_client.rpc.convert import convert, converter
from elbus_client.rpc.errors import RpcError
from elbus_client.rpc.server_cursors import Items, ServerCursors

F = TypeVar("F", bound=Callable[..., Any])
A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A received call. A parameter of a method with this type gets it."""

    #: Name of the calling client.
    sender: str
    method: str
    #: The parameters as they were received, msgpack by convention.
    params: bytes
    #: Whether the call was sent as real-time; the reply then is, too.
    realtime: bool
    #: The call id; 0 if the caller expects no reply.
    id: int


@dataclass(frozen=True)
class Notification:
    """A received RPC notification."""

    sender: str
    payload: bytes
    realtime: bool

    @staticmethod
    def of(frame: Frame) -> Notification:
        """Returns the notification in a frame."""
        return Notification(frame.sender, frame.payload[1:], frame.realtime)


class Contained(Exception):
    """A method has raised what a future cannot carry, or what would end a thread of the client: its cause."""


def contained(function: Callable[[A], T], argument: A) -> T:
    """Calls a function in a thread. A future of asyncio never ends with ``StopIteration``."""
    try:
        return function(argument)
    except StopIteration as error:
        raise Contained from error


Result = Union[bytes, Awaitable[bytes]]
_EMPTY = inspect.Parameter.empty


class Service:
    """Methods that other clients call; for ``Client.serve``.

    >>> service = Service()
    >>> @service.method
    ... async def add(a: int, b: int) -> int:
    ...     return a + b

    The parameters of a call are a msgpack map, whose entries become the arguments of the same names,
    converted and checked by their type hints; keys without a parameter are ignored. A function with one
    parameter that is a dataclass, a TypedDict, ``dict`` or ``Any`` gets the whole value, and so does one
    parameter if the value is no map. Wrong parameters are answered with -32602. A method that raises
    :class:`RpcError` answers with it; another exception is logged and answered with -32603.

    ``async def`` methods run concurrently. Other functions run in the event loop, or with ``thread=True`` in
    a thread.
    """

    def __init__(self) -> None:
        self.methods: dict[str, Callable[[Call], Result]] = {}
        self.cursors = ServerCursors()
        self._notification: Callable[[Notification], Any] | None = None

    @overload
    def method(self, function: F) -> F: ...

    @overload
    def method(
        self, function: None = None, *, name: str | None = None, raw: bool = False, thread: bool = False
    ) -> Callable[[F], F]: ...

    def method(
        self,
        function: F | None = None,
        *,
        name: str | None = None,
        raw: bool = False,
        thread: bool = False,
    ) -> F | Callable[[F], F]:
        """Adds a method; a decorator. With ``raw`` the function gets the bytes of the parameters and returns
        those of the result.
        """

        def add(function: F) -> F:
            self._add(_name(name, function), _bind(function, raw, thread))
            return function

        return add if function is None else add(function)

    def cursor(self, next: str, *, name: str | None = None) -> Callable[[F], F]:
        """Adds a method with a long result that is fetched in parts: the function returns an iterable, or is
        a generator or an async generator. ``next`` is the method that returns the items. A cursor that is not
        used for 60 s is dropped (``cursors.lifetime``).
        """

        def add(function: F) -> F:
            arguments = _Arguments(function)

            async def open(sender: str, result: Any) -> bytes:
                if inspect.isawaitable(result):
                    result = await result
                return self.cursors.open(sender, _iterate(result))

            self._add(
                _name(name, function),
                lambda call: open(call.sender, arguments.call(function, call)),
            )
            self._add(next, lambda call: self.cursors.next(call.sender, call.params))
            return function

        return add

    def notification(self, function: F) -> F:
        """Sets the function that receives each :class:`Notification`; a decorator. Without it they are
        dropped.
        """
        check_callable(function, "the receiver of notifications")
        self._notification = function
        return function

    def add_object(self, implementation: object) -> None:
        """Adds all public methods of an object, for example of a class that also is the interface of a
        proxy.
        """
        for name, function in inspect.getmembers(implementation, callable):
            if not name.startswith("_"):
                self._add(name, _bind(function, False, False))

    def _add(self, name: str, method: Callable[[Call], Result]) -> None:
        if not name or "\0" in name:
            raise ArgumentError(f"{name!r} is no name of a method")
        if name in self.methods:
            raise ArgumentError(f"the method {name!r} exists already")
        self.methods[name] = method

    def handle_call(self, call: Call) -> Result:
        """Handles a call. Returns the bytes of the result, or an awaitable of them."""
        method = self.methods.get(call.method)
        if method is None:
            raise RpcError.method_not_found()
        return method(call)

    def handle_notification(self, notification: Notification) -> Awaitable[None] | None:
        """Handles a notification."""
        return None if self._notification is None else self._notification(notification)


def _name(name: str | None, function: Callable[..., Any]) -> str:
    found: str = name if name is not None else getattr(function, "__name__", "")
    return found


def _iterate(result: Any) -> Items:
    found: Items = result if hasattr(result, "__anext__") else iter(result)
    return found


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


class _Arguments:
    """Converts the parameters of a call to the arguments of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        check_callable(function, "a method")
        try:
            hints = typing.get_type_hints(getattr(function, "__func__", function))
        except (NameError, TypeError) as error:
            raise ArgumentError(f"the type hints of {function!r} cannot be resolved: {error}") from None
        self.returns: Any = hints.get("return", Any)
        self._call: str | None = None
        self._parameters: list[tuple[str, Any, bool]] = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ArgumentError(f"{function!r}: the parameter {parameter} cannot be passed by name")
            # without a hint, a parameter is an argument by name
            hint = hints.get(parameter.name, object)
            if hint is Call:
                self._call = parameter.name
                continue
            try:
                converter(hint)
            except ConversionError as error:
                raise ArgumentError(f"{function!r}: {error}") from None
            self._parameters.append((parameter.name, hint, parameter.default is not _EMPTY))
        self._whole = len(self._parameters) == 1 and takes_whole(self._parameters[0][1])

    def call(self, function: Callable[..., Any], call: Call) -> Any:
        """Calls the function; raises :class:`RpcError` if the parameters do not fit."""
        arguments = self._convert(call.params)
        if self._call is not None:
            arguments[self._call] = call
        return function(**arguments)

    def _convert(self, params: bytes) -> dict[str, Any]:
        parameters = self._parameters
        try:
            value = msgpack.decode(params, "the parameters") if params else None
        except ConversionError as error:
            raise RpcError.parse(str(error)) from None
        try:
            if self._whole or (len(parameters) == 1 and value is not None and not _is_map(value)):
                name, hint, has_default = parameters[0]
                if value is None and has_default:
                    return {}
                return {name: convert(value, hint, name)}
            if value is None:
                value = dict[str, Any]()
            if not _is_map(value):
                names = ", ".join(name for name, _, _ in parameters)
                raise ConversionError(f"expected a map of {names or 'no parameters'}")
            found: dict[str, Any] = {}
            for name, hint, has_default in parameters:
                if name in value:
                    found[name] = convert(value[name], hint, name)
                elif not has_default:
                    raise ConversionError(f"{name} is missing")
            return found
        except ConversionError as error:
            raise RpcError.invalid_params(str(error)) from None


def takes_whole(hint: Any) -> bool:
    """Returns whether an only parameter of this type stands for all parameters of a call."""
    return (
        hint in (Any, dict)
        or typing.get_origin(hint) is dict
        or is_dataclass(hint)
        or typing.is_typeddict(hint)
    )


def _encode(result: Any) -> bytes:
    return b"" if result is None else msgpack.encode(result, "the result")


def _bytes_only(result: object) -> bytes:
    if not isinstance(result, (bytes, bytearray)):
        raise TypeError(f"a raw method must return bytes, not {type(result).__name__}")
    return bytes(result)


def _bind(function: Callable[..., Any], raw: bool, thread: bool) -> Callable[[Call], Result]:
    """Returns a method that converts parameters and result."""
    finish = _bytes_only if raw else _encode
    if raw:
        check_callable(function, "a method")

        def run(call: Call) -> Any:
            return function(call.params)
    else:
        arguments = _Arguments(function)

        def run(call: Call) -> Any:
            return arguments.call(function, call)

    async def wait(result: Awaitable[Any]) -> bytes:
        return finish(await result)

    async def in_thread(call: Call) -> bytes:
        return finish(await asyncio.to_thread(contained, run, call))

    def in_loop(call: Call) -> Result:
        result = run(call)
        return wait(result) if inspect.isawaitable(result) else finish(result)

    return in_thread if thread and not inspect.iscoroutinefunction(function) else in_loop
