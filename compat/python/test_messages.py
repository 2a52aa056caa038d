"""Direct messages and broadcasts: recipients, order and acknowledgements."""

import pytest

from peers import BROADCAST, MESSAGE, NOT_REGISTERED, OK, PUBLISH

ODD_NAMES = ["with space", "UPPER", "a.*", "?", "*", "a+b", "#", "trailing.", "two..dots", "x" * 1000]

# Broadcast masks, and the receivers that match.
RECEIVERS = ["a", "b", "a.b", "a.c", "a.b.c", "ab", "a.b.c.d"]
MASKS = [
    ("a", ["a"]),
    ("a.b", ["a.b"]),
    ("nobody", []),
    ("?", ["a", "b", "ab"]),
    ("?.?", ["a.b", "a.c"]),
    ("a.?", ["a.b", "a.c"]),
    ("?.b", ["a.b"]),
    ("a.?.c", ["a.b.c"]),
    ("?.b.?.d", ["a.b.c.d"]),
    ("*", RECEIVERS),
    ("a.*", ["a.b", "a.c", "a.b.c", "a.b.c.d"]),
    ("?.*", ["a.b", "a.c", "a.b.c", "a.b.c.d"]),
    ("a.?.*", ["a.b.c", "a.b.c.d"]),
    ("a.*.ignored", ["a.b", "a.c", "a.b.c", "a.b.c.d"]),
    ("a*", []),
    ("a.b*", []),
    ("a.#", []),
    ("a.+", []),
    ("A", []),
]


def test_a_message_arrives_with_its_sender(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    assert sender.send(receiver.name, b"hello") == OK
    frame = receiver.next()
    assert (frame.type, frame.sender, frame.primary_sender) == (MESSAGE, sender.name, sender.name)
    assert (frame.topic, frame.payload) == (None, b"hello")


@pytest.mark.parametrize("qos", range(4))
def test_every_qos_delivers(bus, qos):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    receiver.subscribe(f"{bus.prefix}/#")
    assert sender.send(receiver.name, b"message", qos=qos) == OK
    assert sender.broadcast(receiver.name, b"broadcast", qos=qos) == OK
    assert sender.publish(f"{bus.prefix}/x", b"publication", qos=qos) == OK
    assert [(f.type, f.payload) for f in receiver.received_from(sender)] == [
        (MESSAGE, b"message"),
        (BROADCAST, b"broadcast"),
        (PUBLISH, b"publication"),
    ]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0", b"\0\0leading", bytes(range(256)), b"\xeb\x01\x00" * 100],
    ids=["empty", "nul", "nuls", "all-bytes", "greetings"],
)
def test_payloads_arrive_unchanged(bus, payload):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    receiver.subscribe(f"{bus.prefix}/#")
    assert sender.send(receiver.name, payload) == OK
    assert sender.broadcast(receiver.name, payload) == OK
    assert sender.publish(f"{bus.prefix}/x", payload) == OK
    assert receiver.payloads_from(sender) == [payload] * 3


@pytest.mark.parametrize("size", [8191, 65535, 65536, 1 << 20])
def test_large_payloads(bus, size):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    payload = bytes(range(251)) * (size // 251 + 1)
    payload = payload[:size]
    assert sender.send(receiver.name, payload) == OK
    assert receiver.next().payload == payload
    assert sender.send(sender.name, payload) == OK
    assert sender.next().payload == payload


def test_messages_to_itself(bus):
    peer = bus.peer("peer")
    peer.subscribe(f"{bus.prefix}/#")
    assert peer.send(peer.name, b"message") == OK
    assert peer.broadcast(f"{bus.prefix}.?", b"broadcast") == OK
    assert peer.publish(f"{bus.prefix}/own", b"publication") == OK
    assert peer.payloads_from(peer) == [b"message", b"broadcast", b"publication"]


def test_order_across_kinds_and_qos(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    receiver.subscribe(f"{bus.prefix}/#")
    routes = [(receiver.name, MESSAGE), (receiver.name, BROADCAST), (f"{bus.prefix}/t", PUBLISH)]
    operations, sent = [], []
    for number in range(600):
        target, kind = routes[number % 3]
        sent.append(b"%d" % number)
        operations.append(sender.begin_send(target, sent[-1], kind, qos=number % 4))
    assert all(sender.wait_for_ack(operation) == OK for operation in operations)
    assert receiver.payloads_from(sender) == sent


def test_a_burst_to_itself_without_acknowledgement(bus):
    peer = bus.peer("peer")
    for number in range(2000):
        peer.begin_send(peer.name, b"%d" % number, qos=0)
    assert peer.payloads_from(peer) == [b"%d" % number for number in range(2000)]


def test_unknown_targets_are_negatively_acknowledged(bus):
    peer = bus.peer("peer")
    nobody = bus.name("nobody")
    assert peer.send(nobody, b"x", qos=1) == NOT_REGISTERED
    assert peer.send(nobody, b"x", qos=3) == NOT_REGISTERED
    peer.begin_send(nobody, b"x", qos=0)
    peer.begin_send(nobody, b"x", qos=2)
    assert peer.send(peer.name, b"still here") == OK
    assert peer.next().payload == b"still here"


def test_masks_are_not_expanded_in_direct_messages(bus):
    sender = bus.peer("sender")
    bus.peer("a.b")
    for mask in ["a.?", "a.*", "*", "A.B"]:
        assert sender.send(bus.name(mask), b"x") == NOT_REGISTERED


@pytest.mark.parametrize("label", ODD_NAMES, ids=lambda label: label[:12])
def test_unusual_names_are_valid_targets(bus, label):
    sender, odd = bus.peer("sender"), bus.peer(label)
    assert sender.send(odd.name, b"there") == OK
    assert odd.next().payload == b"there"
    assert odd.send(sender.name, b"back") == OK
    assert sender.next().sender == odd.name


def test_names_beyond_ascii(bus):
    """As a sender only: the clients write a wrong length for targets that are not ASCII."""
    sender, receiver = bus.peer("Zürich.東京"), bus.peer("receiver")
    assert sender.send(receiver.name, b"x") == OK
    assert receiver.next().sender == sender.name


def test_broadcast_masks(bus):
    sender = bus.join(f"sender-{bus.prefix}")
    receivers = {label: bus.peer(label) for label in RECEIVERS}
    for mask, _ in MASKS:
        assert sender.broadcast(bus.name(mask), mask.encode()) == OK
    for label, receiver in receivers.items():
        expected = [mask for mask, labels in MASKS if label in labels]
        assert [payload.decode() for payload in receiver.payloads_from(sender)] == expected, label


def test_a_broadcast_to_all(bus):
    sender, receiver = bus.peer("sender"), bus.peer("deep.down.receiver")
    assert sender.broadcast("*", b"all") == OK
    assert receiver.payloads_from(sender) == [b"all"]
    assert sender.payloads_from(sender) == [b"all"]
