"""Objects whose methods call those of another client. Owns the classes that are made for interfaces."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from elbus_client.connection.core import Core
from elbus_client.errors import ArgumentError
from elbus_client.rpc import calling
from elbus_client.rpc.convert import converter
from elbus_client.rpc.service import takes_whole
from elbus_client.wire.requests import encode_text

P = TypeVar("P")


def interface_methods(interface: type[Any]) -> dict[str, Callable[..., Any]]:
    """Returns the public methods of an interface."""
    if not inspect.isclass(interface):
        raise ArgumentError(f"the interface of a proxy must be a class, not {interface!r}")
    found: dict[str, Callable[..., Any]] = {
        name: function
        for name, function in inspect.getmembers(interface, inspect.isfunction)
        if not name.startswith("_")
    }
    if not found:
        raise ArgumentError(f"the interface {interface.__name__} has no public methods")
    return found


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def make_proxy(
    core: Core, interface: type[P], target: str, timeout: float | None, run: Run | None = None
) -> P:
    """Returns a proxy; checks its type hints. With ``run`` its methods are not async, and ``run`` runs the
    calls.
    """
    encode_text(target, "target")
    namespace: dict[str, Any] = {}
    for name, function in interface_methods(interface).items():
        if inspect.iscoroutinefunction(function) != (run is None):
            kind = "an async def" if run is None else "an ordinary def"
            raise ArgumentError(f"{interface.__name__}.{name} must be {kind}")
        call = _method(core, name, function, target, timeout)
        namespace[name] = call if run is None else _blocking(call, run)

    def init(self: object) -> None:
        pass

    def describe(self: object) -> str:
        return f"<proxy {interface.__name__} of {target!r}>"

    namespace["__init__"], namespace["__repr__"] = init, describe
    proxy_class = type(f"{interface.__name__}Proxy", (interface,), namespace)
    proxy_class.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return cast("P", proxy_class())


def _blocking(call: Callable[..., Any], run: Run) -> Callable[..., Any]:
    def blocking(*args: Any, **kwargs: Any) -> Any:
        return run(call(*args, **kwargs))

    return blocking


def _method(
    core: Core, name: str, function: Callable[..., Any], target: str, timeout: float | None
) -> Callable[..., Any]:
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise ArgumentError(f"the type hints of {name} cannot be resolved: {error}") from None
    result = hints.get("return", Any)
    converter(result)
    names = list(signature.parameters)[1:]
    whole = len(names) == 1 and takes_whole(hints.get(names[0], Any))

    async def call(self: object, *args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"{name} of {target!r}: {error}") from None
        params: Any = dict(list(bound.arguments.items())[1:]) or calling.NO_PARAMS
        if whole and params is not calling.NO_PARAMS:
            (params,) = params.values()
        return await calling.call_as(core, result, target, name, params, timeout, False)

    call.__name__ = name
    call.__doc__ = function.__doc__
    return call
