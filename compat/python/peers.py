"""A blocking face over the two published Python clients, so that one test serves both.

`Peer` owns a client of `busrt` ("sync") or `busrt-async` ("async") and collects what it receives.
It adds no protocol of its own: every byte on the wire comes from the published packages.
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

#: Seconds after which something that should have happened counts as failed.
DEADLINE = 10

PUBLISH, SUBSCRIBE, EXCLUDE, UNEXCLUDE, PUBLISH_FOR = 0x01, 0x02, 0x04, 0x05, 0x06
MESSAGE, BROADCAST = 0x12, 0x13
OK, NOT_REGISTERED, BAD_DATA, BUSY = 0x01, 0x71, 0x72, 0x76

LIBRARIES = {"sync": busrt, "async": busrt_async}

_loop = asyncio.new_event_loop()
threading.Thread(target=_loop.run_forever, daemon=True).start()
_fences = itertools.count()


def settle(result):
    """The outcome of a client call: coroutines of the async client are run, the rest is there already."""
    if inspect.isawaitable(result):
        return asyncio.run_coroutine_threadsafe(result, _loop).result(3 * DEADLINE)
    return result


def wait_until(condition, what):
    """Polls until `condition()` is true and returns its value, or fails at the deadline."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s"
        time.sleep(0.02)
    return value


class Refused(Exception):
    """The broker answered the handshake with `code`."""

    def __init__(self, code):
        super().__init__(hex(code))
        self.code = code


class Peer:
    """One client; `frames` holds what it received, in the order of arrival."""

    def __init__(self, flavour, address, name):
        self.name = name
        self.library = LIBRARIES[flavour]
        self.frames = queue.Queue()
        self.notifications = queue.Queue()
        self.rpc = None
        self.client = self.library.client.Client(address, name)
        self.client.on_frame = self._callback(self.frames.put)
        try:
            settle(self.client.connect())
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
            settle(self.client.disconnect())

    def post(self, target, payload=b"", kind=MESSAGE, qos=1):
        """Sends without waiting; the result's `wait_completed` tells the acknowledgement."""
        return settle(self.client.send(target, self.library.client.Frame(payload, kind, qos)))

    def send(self, target, payload=b"", kind=MESSAGE, qos=1):
        """Sends, waits for the acknowledgement (if `qos` asks for one) and returns its code."""
        return self.confirm(self.post(target, payload, kind, qos))

    def confirm(self, operation):
        return settle(operation.wait_completed(timeout=DEADLINE))

    def publish(self, topic, payload=b"", qos=1):
        return self.send(topic, payload, PUBLISH, qos)

    def publish_for(self, topic, receiver, payload):
        return self.send(topic, receiver.encode() + b"\0" + payload, PUBLISH_FOR)

    def broadcast(self, mask, payload=b"", qos=1):
        return self.send(mask, payload, BROADCAST, qos)

    def subscribe(self, *filters):
        """The client subscribes with QoS 0, so nothing confirms it; the next acknowledgement does."""
        settle(self.client.subscribe(list(filters)))
        self.fence()

    def unsubscribe(self, *filters):
        settle(self.client.unsubscribe(list(filters)))
        self.fence()

    def exclude(self, one, other):
        """The clients lack EXCLUDE; their frames with a target carry exactly two filters."""
        return self.send(one, other.encode(), EXCLUDE)

    def unexclude(self, one, other):
        return self.send(one, other.encode(), UNEXCLUDE)

    def fence(self):
        """Returns when the broker has processed all that was sent before."""
        assert self.send(f"{self.name}.nobody") == NOT_REGISTERED

    def next(self):
        return self.frames.get(timeout=DEADLINE)

    def sees_leave(self, name):
        """Waits until the broker has unregistered `name`."""
        wait_until(lambda: self.send(name) == NOT_REGISTERED, f"{name} is unregistered")

    def sees_closed(self):
        """Waits until the client has noticed that the broker closed its connection."""
        wait_until(lambda: not self.connected, f"{self.name} is closed")

    def received_from(self, sender):
        """What `sender` has sent here so far: order makes a marker message the last of it."""
        marker = b"fence %d" % next(_fences)
        assert sender.send(self.name, marker) == OK
        frames = iter(self.next, None)
        before = itertools.takewhile(lambda frame: frame.payload != marker, frames)
        return [frame for frame in before if frame.sender == sender.name]

    def payloads_from(self, sender):
        return [frame.payload for frame in self.received_from(sender)]

    def serve(self, answer=None):
        """Puts the RPC layer on top; `answer(method, params, event)` handles the calls."""
        self.rpc = self.library.rpc.Rpc(self.client)
        self.rpc.on_frame = self._callback(self.frames.put)
        self.rpc.on_notification = self._callback(self.notifications.put)
        if answer:
            self.rpc.on_call = self._callback(
                lambda event: answer(event.method.decode(), event.get_payload(), event)
            )
        return self

    def call(self, target, method, params=b""):
        """Calls and returns the result; an error reply raises `self.library.rpc.RpcException`."""
        event = settle(self.rpc.call(target, self.library.rpc.Request(method, params)))
        return settle(event.wait_completed(timeout=DEADLINE)).get_payload()

    def call_error(self, target, method, params=b""):
        """Makes a call that must fail; returns code and data of the error."""
        try:
            result = self.call(target, method, params)
        except self.library.rpc.RpcException as error:
            return error.rpc_error_code, error.rpc_error_payload
        raise AssertionError(f"{method} gave {result!r} instead of an error")


class Bus:
    """An address of the broker and a flavour of client, with names that no other test uses."""

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
