"""RPC between two Python clients, with each flavour as the caller and as the server."""

import threading

import pytest

from peers import DEADLINE, NOT_REGISTERED, OK, resolve

METHOD_NOT_FOUND, INTERNAL = -32601, -32603


@pytest.fixture
def pair(bus, second_flavour):
    """A caller and a server; `server.seen` collects the calls."""
    caller = bus.peer("caller").serve()
    server = bus.peer("server", second_flavour)
    server.seen = []
    server.called = threading.Semaphore(0)
    exception = server.library.rpc.RpcException

    def handler(method, params, event):
        server.seen.append((method, params, event.frame.sender))
        server.called.release()
        if method == "echo":
            return params
        if method == "nothing":
            return None
        if method == "fail":
            raise exception("does not work", -777)
        if method == "crash":
            raise ValueError("unforeseen")
        raise exception("no such method", METHOD_NOT_FOUND)

    return caller, server.serve(handler)


def test_a_call_and_its_reply(pair):
    caller, server = pair
    assert caller.call(server.name, "echo", b"\0params\0") == b"\0params\0"
    assert caller.call(server.name, "echo") == b""
    assert caller.call(server.name, "nothing", b"x") == b""
    assert server.seen[0] == ("echo", b"\0params\0", caller.name)


def test_error_replies(pair):
    caller, server = pair
    assert caller.call_error(server.name, "fail") == (-777, b"does not work")
    assert caller.call_error(server.name, "crash") == (INTERNAL, b"unforeseen")
    assert caller.call_error(server.name, "none") == (METHOD_NOT_FOUND, b"no such method")


def test_both_clients_can_call(pair):
    caller, server = pair
    assert caller.call(server.name, "echo", b"1") == b"1"
    assert server.call_error(caller.name, "echo")[0] == METHOD_NOT_FOUND


def test_a_call_without_reply(pair):
    caller, server = pair
    request = caller.library.rpc.Request("echo", b"quiet")
    assert caller.wait_for_ack(resolve(caller.rpc.call0(server.name, request))) == OK
    assert server.called.acquire(timeout=DEADLINE)
    assert server.seen == [("echo", b"quiet", caller.name)]
    # A reply to it would arrive before the reply to this call, and find no pending call.
    assert caller.call(server.name, "echo", b"loud") == b"loud"
    assert caller.rpc.calls == {}


def test_notifications(pair):
    caller, server = pair
    notification = caller.library.rpc.Notification(b"\0note")
    assert caller.wait_for_ack(resolve(caller.rpc.notify(server.name, notification))) == OK
    event = server.notifications.get(timeout=DEADLINE)
    assert (event.frame.sender, event.get_payload()) == (caller.name, b"\0note")


def test_other_frames_bypass_the_rpc_layer(pair, bus):
    caller, server = pair
    server.subscribe(f"{bus.prefix}/#")
    assert caller.broadcast(f"{bus.prefix}.server", b"\x01broadcast") == OK
    assert server.next().payload == b"\x01broadcast"
    assert caller.publish(f"{bus.prefix}/x", b"\x01publication") == OK
    assert server.next().payload == b"\x01publication"


def test_calls_to_unknown_targets_fail(pair, bus):
    caller, _ = pair
    code, _ = caller.call_error(bus.name("nobody"), "echo")
    assert code == -32000 - NOT_REGISTERED


def test_large_params_and_results(pair):
    caller, server = pair
    params = bytes(range(256)) * 4096
    assert caller.call(server.name, "echo", params) == params


def test_calls_to_itself(pair):
    _, server = pair
    assert server.call(server.name, "echo", b"self") == b"self"


def test_replies_reach_a_secondary(pair, bus):
    _, server = pair
    caller = bus.peer("caller%%7").serve()
    assert caller.call(server.name, "echo", b"second") == b"second"
    assert server.seen == [("echo", b"second", caller.name)]


def test_concurrent_calls(pair):
    caller, server = pair
    rpc, request = caller.rpc, caller.library.rpc.Request
    params = [b"%d" % number for number in range(100)]
    events = [resolve(rpc.call(server.name, request("echo", p))) for p in params]
    assert [resolve(e.wait_completed(timeout=DEADLINE)).get_payload() for e in events] == params
