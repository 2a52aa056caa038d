"""A blocking interface to the two published Python clients, so that each test runs with both.

`Peer` owns a client of `busrt` ("sync") or `busrt-async` ("async") and collects what it receives.
It adds nothing to the protocol: every byte on the wire comes from the published packages.
"""

import asyncio
import inspect
import itertools
import queue
import threading
import time
import uuid

import busrt
import busrt_async

#: An event that has not happened within this number of seconds is a failure.
DEADLINE = 10

PUBLISH, SUBSCRIBE, EXCLUDE, UNEXCLUDE, PUBLISH_FOR = 0x01, 0x02, 0x04, 0x05, 0x06
MESSAGE, BROADCAST = 0x12, 0x13
OK, NOT_REGISTERED, BAD_DATA, BUSY = 0x01, 0x71, 0x72, 0x76

LIBRARIES = {"sync": busrt, "async": busrt_async}

_loop = asyncio.new_event_loop()
threading.Thread(target=_loop.run_forever, daemon=True).start()
_markers = itertools.count()


def resolve(result):
    """The result of a client call; a coroutine of the async client is run first."""
    if inspect.isawaitable(result):
        return asyncio.run_coroutine_threadsafe(result, _loop).result(3 * DEADLINE)
    return result


def wait_until(condition, what):
    """Polls until `condition()` is true and returns its value; fails at the deadline."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s"
        time.sleep(0.02)
    return value


class Refused(Exception):
    """The broker refused the handshake with `code`."""

    def __init__(self, code):
        super().__init__(hex(code))
        self.code = code


class Peer:
    """A client; `frames` holds the received frames in order of arrival."""

    def __init__(self, flavour, address, name):
        self.name = name
        self.library = LIBRARIES[flavour]
        self.frames = queue.Queue()
        self.notifications = queue.Queue()
        self.rpc = None
        self.client = self.library.client.Client(address, name)
        self.client.on_frame = self._callback(self.frames.put)
        try:
            resolve(self.client.connect())
        except RuntimeError as error:
            raise Refused(int(str(error).rsplit(" ", 1)[1], 16)) from None

    def _callback(self, function):
        if self.library is busrt:
            return function

        async def call(argument):
            return function(argument)

        return call

    @property
    def connected(self):
        return self.client.is_connected()

    def close(self):
        if self.connected:
            resolve(self.client.disconnect())

    def begin_send(self, target, payload=b"", kind=MESSAGE, qos=1):
        """Sends without waiting; `wait_for_ack` waits for the acknowledgement of the result."""
        return resolve(self.client.send(target, self.library.client.Frame(payload, kind, qos)))

    def send(self, target, payload=b"", kind=MESSAGE, qos=1):
        """Sends, waits for the acknowledgement if `qos` asks for one, and returns its code."""
        return self.wait_for_ack(self.begin_send(target, payload, kind, qos))

    def wait_for_ack(self, operation):
        return resolve(operation.wait_completed(timeout=DEADLINE))

    def publish(self, topic, payload=b"", qos=1):
        return self.send(topic, payload, PUBLISH, qos)

    def publish_for(self, topic, receiver, payload):
        return self.send(topic, receiver.encode() + b"\0" + payload, PUBLISH_FOR)

    def broadcast(self, mask, payload=b"", qos=1):
        return self.send(mask, payload, BROADCAST, qos)

    def subscribe(self, *filters):
        """The client subscribes with QoS 0, without acknowledgement; a later one confirms it."""
        resolve(self.client.subscribe(list(filters)))
        self.wait_until_processed()

    def unsubscribe(self, *filters):
        resolve(self.client.unsubscribe(list(filters)))
        self.wait_until_processed()

    def exclude(self, one, other):
        """The clients lack EXCLUDE, but a frame with a target carries exactly two filters."""
        return self.send(one, other.encode(), EXCLUDE)

    def unexclude(self, one, other):
        return self.send(one, other.encode(), UNEXCLUDE)

    def wait_until_processed(self):
        """Returns when the broker has processed everything sent before."""
        assert self.send(f"{self.name}.nobody") == NOT_REGISTERED

    def next(self):
        return self.frames.get(timeout=DEADLINE)

    def wait_until_unregistered(self, name):
        """Waits until the broker has unregistered `name`."""
        wait_until(lambda: self.send(name) == NOT_REGISTERED, f"{name} is unregistered")

    def wait_until_disconnected(self):
        """Waits until the client has noticed that the broker disconnected it."""
        wait_until(lambda: not self.connected, f"{self.name} is disconnected")

    def received_from(self, sender):
        """The frames received from `sender` so far. Order is kept, so a marker message ends them."""
        marker = b"marker %d" % next(_markers)
        assert sender.send(self.name, marker) == OK
        frames = iter(self.next, None)
        before = itertools.takewhile(lambda frame: frame.payload != marker, frames)
        return [frame for frame in before if frame.sender == sender.name]

    def payloads_from(self, sender):
        return [frame.payload for frame in self.received_from(sender)]

    def serve(self, handler=None):
        """Adds the RPC layer; `handler(method, params, event)` handles the calls."""
        self.rpc = self.library.rpc.Rpc(self.client)
        self.rpc.on_frame = self._callback(self.frames.put)
        self.rpc.on_notification = self._callback(self.notifications.put)
        if handler:
            self.rpc.on_call = self._callback(
                lambda event: handler(event.method.decode(), event.get_payload(), event)
            )
        return self

    def call(self, target, method, params=b""):
        """Calls and returns the result; an error reply raises `self.library.rpc.RpcException`."""
        event = resolve(self.rpc.call(target, self.library.rpc.Request(method, params)))
        return resolve(event.wait_completed(timeout=DEADLINE)).get_payload()

    def call_error(self, target, method, params=b""):
        """Makes a call that must fail and returns the code and data of the error."""
        try:
            result = self.call(target, method, params)
        except self.library.rpc.RpcException as error:
            return error.rpc_error_code, error.rpc_error_payload
        raise AssertionError(f"{method} returned {result!r} instead of an error")


class Bus:
    """An address of the broker and a flavour of client, with a unique prefix for names."""

    def __init__(self, transport, address, flavour):
        self.transport = transport
        self.address = address
        self.flavour = flavour
        self.prefix = f"py-{uuid.uuid4().hex[:12]}"
        self.peers = []

    def name(self, label):
        return f"{self.prefix}.{label}"

    def peer(self, label, flavour=None):
        """A connected client named `prefix.label`."""
        return self.join(self.name(label), flavour)

    def join(self, name, flavour=None):
        """A connected client of any name; raises `Refused`."""
        self.peers.append(Peer(flavour or self.flavour, self.address, name))
        return self.peers[-1]

    def refusal(self, name):
        """The code with which the broker refuses `name`."""
        try:
            self.join(name)
        except Refused as refused:
            return refused.code
        raise AssertionError(f"{name!r} was accepted")

    def close(self):
        for peer in self.peers:
            peer.close()
