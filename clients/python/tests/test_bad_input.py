"""Bad input in every form, with both faces: each a typed error whose text says what to do, never a hang."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from broker import Broker
from fake_broker import peer, receive, register, until_closed
from support import DEADLINE, run, soon

import elbus_client as elbus
from elbus_client import blocking

Connect = Callable[..., Any]


def connect_async(*arguments: Any, **settings: Any) -> None:
    async def main() -> None:
        async with elbus.connect(*arguments, **settings):
            pass

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def connect_blocking(*arguments: Any, **settings: Any) -> None:
    with blocking.connect(*arguments, **settings):
        pass


@pytest.fixture(params=[connect_async, connect_blocking], ids=["async", "blocking"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return request.param  # type: ignore[no-any-return]


def test_no_broker(connect: Connect, tmp_path: pathlib.Path) -> None:
    with pytest.raises(elbus.NoBrokerError, match="start elbusd or check the address"):
        connect(tmp_path / "none.sock", "a")
    (tmp_path / "file.sock").write_text("not a socket")
    with pytest.raises(elbus.NoBrokerError):
        connect(str(tmp_path / "file.sock"), "a")
    with pytest.raises(elbus.NoBrokerError):
        connect("/" + "x" * 200 + ".sock", "a")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(elbus.NoBrokerError, match=f"127.0.0.1:{port}"):
            connect(f"127.0.0.1:{port}", "a")
    with pytest.raises(elbus.NoBrokerError):
        connect("name.invalid:7777", "a")


@pytest.mark.parametrize(
    "address",
    ["", "localhost", ":7777", "host:port", "host:70000", "fifo:/run/f", "unix:", "unix:@bus", "@bus", "tls://host",
     "tls:", "http://host:80", "host:-1", "host:٣", "a\0.sock", 7777, b"/run/x.sock", ["x"]],
)  # fmt: skip
def test_wrong_addresses(connect: Connect, address: object) -> None:
    with pytest.raises(elbus.BadAddressError, match="expected a UNIX socket path"):
        connect(address, "a")


def test_names(connect: Connect, address: str, access_address: str) -> None:
    for name, error in [
        ("", elbus.NameRefusedError),
        (".x", elbus.NameRefusedError),
        ("x" * 2000, elbus.NameRefusedError),
        ("x" * 70_000, elbus.NameRefusedError),
        ("nobody%%0", elbus.NoPrimaryError),
        ("a\0b", elbus.UnsendableError),
        ("a\ud800", elbus.UnsendableError),
        (b"bytes", elbus.ArgumentError),
        (None, elbus.ArgumentError),
    ]:
        with pytest.raises(error):
            connect(address, name)
    with pytest.raises(elbus.AccessDeniedError, match="access rules"):
        connect(access_address, "stranger")
    with blocking.connect(address, "taken"), pytest.raises(elbus.NameTakenError, match="choose another name"):
        connect(address, "taken")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": "5"}, "timeout must be a number"),
        ({"timeout": float("nan")}, "timeout must be a number"),
        ({"ping_interval": -1}, "ping_interval"),
        ({"queue_bytes": None}, "queue_bytes"),
        ({"overflow": "block"}, "overflow must be an Overflow"),
        ({"reconnect": 5}, "reconnect must be a Backoff"),
        ({"tls": "cert.pem"}, "tls must be an ssl.SSLContext"),
    ],
)
def test_settings(connect: Connect, address: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(elbus.ArgumentError, match=text):
        connect(address, "a", **settings)


def test_peers_that_are_no_broker(connect: Connect) -> None:
    for greeting in [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xeb\x02\x00", b"\x00", b"SSH-2.0-x", b"\xeb"]:

        def greet(connection: socket.socket, greeting: bytes = greeting) -> None:
            connection.sendall(greeting)

        with peer(greet) as address, pytest.raises(elbus.NotABrokerError, match="check the address"):
            connect(address, "a")

    def silent(connection: socket.socket) -> None:
        until_closed(connection)

    with peer(silent) as address, pytest.raises(elbus.TimedOutError, match="connecting to"):
        connect(address, "a", timeout=0.1)

    def half_greeting(connection: socket.socket) -> None:
        connection.sendall(b"\xeb\x01")
        until_closed(connection)

    with peer(half_greeting) as address, pytest.raises(elbus.TimedOutError):
        connect(address, "a", timeout=0.1)


def test_a_tls_peer_that_is_none(connect: Connect) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)
        import threading

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\xeb\x01\x00 this is no TLS")
                connection.recv(1000)

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        with pytest.raises(elbus.TlsError, match="check the certificates"):
            connect(f"tls://127.0.0.1:{listener.getsockname()[1]}", "a", timeout=5)
        answering.join(DEADLINE)


FRAMES = {
    "four gigabytes": b"\x12\xff\xff\xff\xff\x00",
    "an unknown kind": b"\x55\x00\x00\x00\x00\x00",
    "a name that is not UTF-8": b"\x12\x03\x00\x00\x00\x00\xff\x00x",
    "a topic that is not UTF-8": b"\x01\x05\x00\x00\x00\x00a\x00\xff\x00x",
    "no NUL": b"\x12\x03\x00\x00\x00\x00abc",
    "an empty body": b"\x01\x00\x00\x00\x00\x00",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
@run
async def test_invalid_frames(frame: bytes) -> None:
    def send(connection: socket.socket) -> None:
        register(connection)
        connection.sendall(b"\x12\x04\x00\x00\x00\x00b\x00hi" + frame)
        until_closed(connection)

    with peer(send) as address:
        client = await elbus.connect(address, "a")
        before = await soon(client.frames.next())
        assert before and before.payload == b"hi"
        assert await soon(client.frames.next()) is None
        with pytest.raises(elbus.DisconnectedError, match="invalid frame"):
            await client.send("b")


@run
async def test_half_a_frame_then_silence() -> None:
    def send(connection: socket.socket) -> None:
        register(connection)
        connection.sendall(b"\x12\x40\x00\x00\x00\x00b\x00h")
        until_closed(connection)

    with peer(send) as address:
        client = await elbus.connect(address, "a", timeout=0.1, ping_interval=0.05)
        assert await soon(client.frames.next()) is None
        with pytest.raises(elbus.DisconnectedError, match="silent"):
            await client.send("b")


@run
async def test_a_large_frame_that_does_not_come_takes_no_memory() -> None:
    def send(connection: socket.socket) -> None:
        register(connection)
        connection.sendall(b"\x12\x00\x00\x00\x0f\x00b\x00" + b"x" * 1_000_000)
        receive(connection, 9)
        until_closed(connection)

    with peer(send) as address:
        client = await elbus.connect(address, "a", ping_interval=0.05)
        connection = client.core.connection
        assert connection is not None
        for _ in range(1000):
            if connection.bytes_received > 1_000_000:
                break
            await asyncio.sleep(0.01)
        assert len(connection._buffer) < 16_000_000  # pyright: ignore[reportPrivateUsage]
        await client.close()


@run
async def test_no_acknowledgement() -> None:
    def ignore(connection: socket.socket) -> None:
        register(connection)
        while connection.recv(1000):
            connection.sendall(bytes(6))  # alive

    with peer(ignore) as address:
        async with elbus.connect(address, "a", timeout=0.1) as client:
            with pytest.raises(elbus.TimedOutError, match=r"send to 'b': timed out after 0\.1 s"):
                await client.send("b")
            with pytest.raises(elbus.TimedOutError):
                await client.subscribe("t")
            with pytest.raises(elbus.TimedOutError):
                await client.subscribe("t", elbus.Options(latest=True))
            with pytest.raises(elbus.TimedOutError, match="call of 'm' of 'b'"):
                await client.call("b", "m", timeout=0.05)


def stop_reading(connection: socket.socket) -> None:
    register(connection)
    import time

    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            connection.sendall(bytes(6))
        except OSError:
            return
        time.sleep(0.02)


@run
async def test_a_broker_that_does_not_read() -> None:
    with peer(stop_reading) as address:
        client = await elbus.connect(address, "a", timeout=0.2, queue_bytes=100_000)
        with pytest.raises(elbus.TimedOutError, match="does not read"):
            for _ in range(100_000):
                await client.send("b", b"x" * 1000, elbus.Qos.NO)
        with pytest.raises(elbus.QueueFullError, match="twice queue_bytes"):
            for _ in range(100_000):
                await client.send("b", b"x" * 1000, elbus.Qos.REALTIME)
        assert client.stats.queued_bytes < 300_000
        await soon(client.close())


def test_a_broker_that_does_not_read_blocking() -> None:
    with peer(stop_reading) as address:
        client = blocking.connect(address, "a", timeout=0.2, queue_bytes=100_000)
        with pytest.raises(elbus.TimedOutError, match="does not read"):
            for _ in range(100_000):
                client.send("b", b"x" * 1000, elbus.Qos.NO)
        client.close()


def arguments(client: Any) -> list[Callable[[], Any]]:
    """Returns operations with arguments of wrong types or values."""
    return [
        lambda: client.send(5, b""),
        lambda: client.send(None, b"", elbus.Qos.NO),
        lambda: client.send(["a"], b"", elbus.Qos.NO),
        lambda: client.send("a", 5),
        lambda: client.send("a", {"a": 1}, elbus.Qos.NO),
        lambda: client.send("a", b"", 7),
        lambda: client.send("a", b"", "processed"),
        lambda: client.send("a", b"", -1),
        lambda: client.publish(b"t", b""),
        lambda: client.publish_for("t", 5, b""),
        lambda: client.broadcast(5, b""),
        lambda: client.subscribe(5),
        lambda: client.subscribe(b"t"),
        lambda: client.subscribe(["t", 5]),
        lambda: client.subscribe("t", "latest"),
        lambda: client.add_filters(None),
        lambda: client.exclude([None]),
        lambda: client.call(5, "m"),
        lambda: client.call("a", 5),
        lambda: client.call("a", "m", 5),
        lambda: client.call("a", "m", timeout=0),
        lambda: client.call("a", "m", timeout="1"),
        lambda: client.call0("a", None),
        lambda: client.notify("a", 1.5),
        lambda: client.proxy("Math", "a"),
        lambda: client.proxy(object, "a"),
        lambda: client.serve(print),
        lambda: client.serve(None),
    ]


UNSENDABLE = [
    lambda client: client.send("a\0b"),
    lambda client: client.send("a\0b", qos=elbus.Qos.NO),
    lambda client: client.send("a", "\ud800"),
    lambda client: client.publish("t\0", qos=elbus.Qos.NO),
    lambda client: client.publish_for("t", "a\0"),
    lambda client: client.subscribe("t\0u"),
    lambda client: client.subscribe("\udfff"),
    lambda client: client.call("a", "m\0"),
    lambda client: client.send("a", bytes(3_000_000)),
    lambda client: client.send("a", bytes(3_000_000), elbus.Qos.NO),
]


@run
async def test_wrong_arguments(address: str, prefix: str) -> None:
    async with elbus.connect(address, f"{prefix}.a", max_frame_bytes=2_000_000) as client:
        for number in range(len(arguments(client))):
            with pytest.raises(elbus.ArgumentError):
                result = arguments(client)[number]()
                await result
                raise AssertionError(number)
        for operation in UNSENDABLE:
            with pytest.raises(elbus.UnsendableError):
                await operation(client)
        await client.send(client.name, "still connected")
        frame = await soon(client.frames.next())
        assert frame and frame.payload == b"still connected"


def test_wrong_arguments_blocking(address: str, prefix: str) -> None:
    with blocking.connect(address, f"{prefix}.a", max_frame_bytes=2_000_000) as client:
        for number, operation in enumerate(arguments(client)):
            with pytest.raises(elbus.ArgumentError):
                operation()
                raise AssertionError(number)
        for unsendable in UNSENDABLE:
            with pytest.raises(elbus.UnsendableError):
                unsendable(client)
        client.send(client.name, "still connected", elbus.Qos.NO)
        frame = client.frames.next(timeout=DEADLINE)
        assert frame and frame.payload == b"still connected"


@pytest.mark.parametrize(
    "options",
    [
        {"share": ""}, {"share": "a/b"}, {"share": "a+"}, {"share": "x" * 256}, {"share": 5},
        {"share": "a", "key": ("a", 1)}, {"key": "a"}, {"key": ("a", 0)}, {"key": ("a", 33)},
        {"key": ("a", "1")}, {"every": 0}, {"every": -1}, {"every": 86_401}, {"every": float("nan")},
        {"every": "1"}, {"latest": True, "lossy": True}, {"latest": "yes"},
    ],
)  # fmt: skip
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(elbus.ArgumentError, match="options"):
        elbus.Options(**options)


@run
async def test_access_rules(access_address: str) -> None:
    async with elbus.connect(access_address, "plant.a") as client:
        for operation in (
            lambda: client.publish("closed/x"),
            lambda: client.send("other"),
            lambda: client.subscribe("closed/#"),
            lambda: client.call("other", "m"),
        ):
            with pytest.raises(elbus.AccessDeniedError, match="elbus broker explain") as raised:
                await operation()
            assert raised.value.code == 0x79 and isinstance(raised.value, PermissionError)
        async with client.subscribe("open/#") as subscription:
            await client.publish("open/x", "1")
            assert await soon(subscription.next())


def test_methods_that_cannot_be_served() -> None:
    service = elbus.Service()

    class Unknown:
        pass

    def unsupported(a: Unknown) -> None: ...

    def positional(*args: int) -> None: ...

    def unresolved(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (unsupported, positional, unresolved, 5):
        with pytest.raises(elbus.ArgumentError):
            service.method(function)  # type: ignore[call-overload]

    @service.method
    def twice() -> None: ...

    with pytest.raises(elbus.ArgumentError, match="exists already"):
        service.method(twice)


def test_without_msgpack(address: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from elbus_client.rpc import msgpack

    monkeypatch.setattr(msgpack, "msgpack", None)

    async def main() -> None:
        async with elbus.connect(address, f"{prefix}.a") as client:
            assert await client.call(".broker", "test") == b"\x81\xa2ok\xc3"
            async with client.subscribe("t", elbus.Options(latest=True)):
                pass
            with pytest.raises(elbus.MissingPackageError, match=r"pip install 'elbus-client\[rpc\]'"):
                await client.call_as(dict, ".broker", "info")

    asyncio.run(main())


def test_outside_of_an_event_loop(address: str) -> None:
    opening: Coroutine[Any, Any, Any] = elbus.connect(address, "a")
    with pytest.raises(elbus.WrongThreadError, match="call this within a coroutine"):
        opening.send(None)


def test_errors_are_one_line_and_can_be_pickled() -> None:
    import pickle

    errors = [
        elbus.NoBrokerError("/x", "refused"), elbus.NameTakenError("x"), elbus.RefusedError("send", 0x22),
        elbus.RpcError(-32602, "two\nlines"), elbus.RpcError(5, b"\xff"), elbus.TimedOutError("call", 1.5),
        elbus.DisconnectedError("gone"), elbus.ClosedError(), elbus.QueueFullError(1, 2),
        elbus.FrameTooLongError(2, 1),
    ]  # fmt: skip
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
        assert "\n" not in str(error) and error.kind != "error"
        assert str(error.fresh()) == str(error) and error.fresh().__traceback__ is None


def test_a_broker_of_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    broker = Broker()
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", broker.folder)
        (pathlib.Path(broker.folder) / "elbus.sock").symlink_to(broker.socket)
        connect_blocking(None, "a")
        from elbus_client.address import default_address

        found = default_address()
        assert found.may_be_served_by(0) and not found.may_be_served_by(12345)
    finally:
        broker.close()


def test_mixed_up_arguments_of_calls_say_what_to_do(address: str, prefix: str) -> None:
    with blocking.connect(address, prefix) as client:
        wrong: Any = client
        with pytest.raises(elbus.ArgumentError, match="bytes, not dict: call_as converts values"):
            wrong.call("a", "m", {"a": 1})
        with pytest.raises(elbus.ArgumentError, match="the type of the result, for example int, not 'a'"):
            wrong.call_as("a", "m", {"a": 1})


@pytest.mark.parametrize("qos", list(elbus.Qos))
def test_payloads_beyond_a_small_limit(address: str, prefix: str, qos: elbus.Qos) -> None:
    async def main() -> None:
        async with elbus.connect(address, prefix, max_frame_bytes=1000) as client:
            await client.publish("t", bytes(1000), qos)
            with pytest.raises(
                elbus.FrameTooLongError, match="payload of 1001 bytes exceeds the limit of 1000"
            ):
                await client.publish("t", bytes(1001), qos)

    asyncio.run(main())
    with blocking.connect(address, prefix, max_frame_bytes=1000) as client:
        client.publish("t", bytes(1000), qos)
        with pytest.raises(elbus.FrameTooLongError, match="payload of 1001 bytes exceeds the limit of 1000"):
            client.publish("t", bytes(1001), qos)


@pytest.mark.parametrize("address", ["ws://localhost:8080/", "wss://host:443"])
def test_addresses_of_websockets(connect: Connect, address: str) -> None:
    with pytest.raises(elbus.BadAddressError, match="this client does not speak WebSocket"):
        connect(address, "x")


@pytest.mark.parametrize("code", [32768, -32769, "5", None, True, 1.5])
def test_codes_of_rpc_errors(code: Any) -> None:
    with pytest.raises(elbus.ArgumentError, match="must be an integer from -32768 to 32767, not"):
        elbus.RpcError(code)
    with pytest.raises(elbus.ArgumentError, match="must be bytes or str, not int"):
        elbus.RpcError(5, 5)  # type: ignore[arg-type]


@run
async def test_a_client_that_was_not_awaited_says_so(address: str, prefix: str) -> None:
    opening: Any = elbus.connect(address, prefix)
    with pytest.raises(AttributeError, match="has no 'publish': await it first, or use it with async with"):
        opening.publish("t", "x")
    async with opening as client:
        assert client.is_connected
