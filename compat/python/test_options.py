"""Filters with options and retained values: for existing clients they are only texts.

A broker without them, such as busrtd, skips these tests. With ELBUS_COMPAT_ALL they must run.
"""

import os
import socket
import threading

import msgpack
import pytest

from peers import BAD_DATA, DEADLINE, OK, SUBSCRIBE, resolve, wait_until

METHOD_NOT_FOUND = -32601


def require(bus, method, what):
    """Skips the test if the broker does not have a method."""
    caller = bus.peer("asks").serve()
    try:
        return caller.call(".broker", method)
    except caller.library.rpc.RpcException as error:
        if error.rpc_error_code != METHOD_NOT_FOUND or os.environ.get("ELBUS_COMPAT_ALL"):
            raise
        pytest.skip(f"the broker has no {what}")


@pytest.fixture
def options(bus):
    """The options that the broker knows."""
    return msgpack.unpackb(require(bus, "features", "options"))


@pytest.fixture
def retain(bus):
    """A broker that retains values."""
    require(bus, "retain.list", "retained values")


def subscription_code(peer, filter_):
    """Subscribes with acknowledgement and returns the code."""
    frame = peer.library.client.Frame(tp=SUBSCRIBE, qos=1)
    frame.topic = [filter_]
    return peer.wait_for_ack(resolve(peer.client.send(None, frame)))


def test_the_broker_lists_its_options(options):
    assert {"share", "key", "latest", "every", "lossy"} <= {name for name, known in options.items() if known}


def test_a_group_shares_publications(bus, options, second_flavour):
    sender, one, two = bus.peer("sender"), bus.peer("one"), bus.peer("two", second_flavour)
    for worker in (one, two):
        assert subscription_code(worker, f"$share/workers/{bus.prefix}/jobs/#") == OK
    topics = [f"{bus.prefix}/jobs/{number}" for number in range(60)]
    for topic in topics:
        assert sender.publish(topic, b"job") == OK
    first, second = one.received_from(sender), two.received_from(sender)
    assert len(first) > 10 and len(second) > 10
    assert sorted(frame.topic for frame in first + second) == sorted(topics)
    assert {frame.sender for frame in first + second} == {sender.name}

    two.unsubscribe(f"$share/workers/{bus.prefix}/jobs/#")
    for topic in topics[:10]:
        assert sender.publish(topic, b"job") == OK
    assert [frame.topic for frame in one.received_from(sender)] == topics[:10]
    assert two.received_from(sender) == []


def test_latest_values_arrive_in_order(bus, options):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    assert subscription_code(receiver, f"$latest/{bus.prefix}/#") == OK
    for number in range(200):
        sender.publish(f"{bus.prefix}/t", b"%d" % number, qos=0)
    assert sender.publish(f"{bus.prefix}/t", b"last") == OK
    values = []
    while not values or values[-1] != b"last":
        frame = receiver.next()
        assert frame.topic == f"{bus.prefix}/t"
        values.append(frame.payload)
    numbers = [int(value) for value in values[:-1]]
    assert numbers == sorted(set(numbers))


def test_a_slow_client_gets_the_latest_value(bus, options):
    if bus.flavour != "sync":
        pytest.skip("only the blocking client stops reading while it handles a frame")
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    # more than the buffers of both sockets take: without the option the sender would be held
    count = 400
    if hasattr(receiver.client, "socket"):
        # otherwise the kernel takes up to 32 MB for the client, and to send more takes longer than the
        # broker waits for a client that reads nothing
        receiver.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        count = 100
    assert subscription_code(receiver, f"$latest/{bus.prefix}/#") == OK
    entered, leave = threading.Event(), threading.Event()

    def on_frame(frame):
        entered.set()
        assert leave.wait(DEADLINE)
        receiver.frames.put(frame)

    receiver.client.on_frame = on_frame
    sender.publish(f"{bus.prefix}/t", b"first")
    assert entered.wait(DEADLINE)
    for number in range(count):
        sender.publish(f"{bus.prefix}/t", b"%06d" % number + bytes(100_000), qos=0)
    assert sender.publish(f"{bus.prefix}/t", b"last") == OK
    leave.set()
    values = [receiver.next().payload[:6]]
    while values[-1] != b"last":
        values.append(receiver.next().payload[:6])
    assert values[0] == b"first" and len(values) < count


def test_malformed_options_are_refused(bus, options):
    peer = bus.peer("peer")
    for filter_ in ["$share/x", "$share//x", "$latest", "$every/0/x", "$latest/$share/g/x"]:
        assert subscription_code(peer, filter_) == BAD_DATA
    assert peer.publish("$share/g/x") == BAD_DATA


def test_retained_values(bus, retain, second_flavour):
    sender = bus.peer("sender")
    topics = [f"{bus.prefix}/retained/{number}" for number in range(5)]
    for topic in topics:
        assert sender.publish(topic, b"old") == OK
        assert sender.publish(topic, topic.encode()) == OK
    assert sender.publish(topics[4], b"") == OK  # deletes it
    assert sender.publish(f"{bus.prefix}/other", b"not retained") == OK

    late = bus.peer("late", second_flavour)
    late.subscribe(f"{bus.prefix}/#")
    values = {}
    wait_until(lambda: collect(late, values) == 4, "the retained values")
    assert values == {topic: (sender.name, topic.encode()) for topic in topics[:4]}
    assert sender.publish(topics[0], b"new") == OK
    assert late.payloads_from(sender) == [b"new"]

    shared = bus.peer("shared", second_flavour)
    shared.subscribe(f"$share/g/{bus.prefix}/#")
    assert shared.received_from(sender) == []


def collect(peer, values):
    """Adds the frames that have arrived. Returns the number of topics."""
    while not peer.frames.empty():
        frame = peer.frames.get()
        assert frame.topic not in values, "delivered twice"
        values[frame.topic] = (frame.sender, frame.payload)
    return len(values)
