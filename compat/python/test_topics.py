"""Publications: filters, subscriptions, exclusions, publications to one receiver."""

import pytest

from peers import OK, PUBLISH, SUBSCRIBE, resolve

# Filter, topics that match, topics that do not; all below the prefix of the test.
FILTERS = [
    ("a/b", ["a/b"], ["a", "a/b/c", "a/", "A/b", "/a/b"]),
    ("a/+", ["a/b", "a/", "a/+"], ["a", "a/b/c", "b/a"]),
    ("+/b", ["a/b", "/b"], ["b", "a/b/b", "a/c"]),
    ("a/+/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c"]),
    ("a/#", ["a/", "a/b", "a/b/c", "a/#"], ["a", "b/a", "ab/c"]),
    ("a/#/ignored", ["a/b", "a/b/c"], ["a"]),
    ("+/#", ["a/b", "a/b/c", "/b"], ["a"]),
    ("a+/b#", ["a+/b#"], ["ab/b", "a/b"]),
    ("a/*", ["a/*"], ["a/b"]),
    ("a/?", ["a/?"], ["a/b"]),
    ("a.b/c", ["a.b/c"], ["a/b/c"]),
]


@pytest.mark.parametrize("filter_, matching, others", FILTERS, ids=[f[0] for f in FILTERS])
def test_filters(bus, filter_, matching, others):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    receiver.subscribe(f"{bus.prefix}/{filter_}")
    for topic in matching + others:
        assert sender.publish(f"{bus.prefix}/{topic}", b"x") == OK
    arrived = [frame.topic for frame in receiver.received_from(sender)]
    assert arrived == [f"{bus.prefix}/{topic}" for topic in matching]


def test_all_topics(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    receiver.subscribe("#")
    topics = ["", "/", "/x", "$SYS/x", ".x", "a/b/c", "x" * 4000]
    for topic in topics:
        assert sender.publish(topic, b"x") == OK
    assert [frame.topic for frame in receiver.received_from(sender)] == topics


def test_a_publication_carries_sender_and_topic(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    assert sender.publish(f"{bus.prefix}/x", b"nobody listens") == OK
    receiver.subscribe(f"{bus.prefix}/x")
    assert sender.publish(f"{bus.prefix}/x", b"\0binary\0") == OK
    (frame,) = receiver.received_from(sender)
    assert (frame.type, frame.sender, frame.topic) == (PUBLISH, sender.name, f"{bus.prefix}/x")
    assert frame.payload == b"\0binary\0"


def test_overlapping_subscriptions_deliver_once(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    a, b, c, below = (f"{bus.prefix}/{topic}" for topic in ["a", "b", "c", "#"])
    receiver.subscribe(a, b, c)
    receiver.subscribe(a, below)
    for topic in [a, b]:
        sender.publish(topic, b"once")
    assert receiver.payloads_from(sender) == [b"once"] * 2

    receiver.unsubscribe(below)
    receiver.unsubscribe(a, b, f"{bus.prefix}/never")
    for topic in [a, b, c]:
        sender.publish(topic, topic.encode())
    assert receiver.payloads_from(sender) == [c.encode()]

    receiver.unsubscribe(f"{bus.prefix}/+")
    sender.publish(c, b"another filter was removed")
    assert receiver.payloads_from(sender) == [b"another filter was removed"]
    receiver.unsubscribe(c)
    sender.publish(c, b"gone")
    assert receiver.payloads_from(sender) == []


def test_subscriptions_are_acknowledged_on_request(bus):
    peer = bus.peer("peer")
    frame = peer.library.client.Frame(tp=SUBSCRIBE, qos=1)
    frame.topic = [f"{bus.prefix}/a", f"{bus.prefix}/b"]
    assert peer.wait_for_ack(resolve(peer.client.send(None, frame))) == OK


def test_many_filters_in_one_frame(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    topics = [f"{bus.prefix}/{number}" for number in range(500)]
    receiver.subscribe(*topics)
    for topic in topics[::50]:
        sender.publish(topic, b"x")
    assert [frame.topic for frame in receiver.received_from(sender)] == topics[::50]


def test_exclusions_suppress_publications(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    open_, secret, noise = (f"{bus.prefix}/{topic}" for topic in ["open", "secret/a", "noise"])

    def publish_all():
        for topic in [open_, secret, noise]:
            sender.publish(topic, b"x")
        return [frame.topic for frame in receiver.received_from(sender)]

    assert receiver.exclude(f"{bus.prefix}/secret/#", noise) == OK
    assert publish_all() == []
    receiver.subscribe(f"{bus.prefix}/#", secret)
    assert publish_all() == [open_]
    assert receiver.unexclude(noise, f"{bus.prefix}/never") == OK
    assert publish_all() == [open_, noise]
    assert receiver.unexclude(secret, f"{bus.prefix}/#") == OK
    assert publish_all() == [open_, noise]
    assert receiver.unexclude(f"{bus.prefix}/secret/#", f"{bus.prefix}/never") == OK
    assert publish_all() == [open_, secret, noise]


def test_exclusions_apply_to_publications_only(bus):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    assert receiver.exclude("#", f"{bus.prefix}/x") == OK
    assert sender.send(receiver.name, b"message") == OK
    assert sender.broadcast(receiver.name, b"broadcast") == OK
    assert receiver.payloads_from(sender) == [b"message", b"broadcast"]


def test_publications_to_one_receiver(bus):
    sender, one, other = bus.peer("sender"), bus.peer("one"), bus.peer("other")
    second = bus.peer("one%%0")
    excluded = bus.peer("one%%1")
    topic = f"{bus.prefix}/t"
    for peer in [one, other, second, sender]:
        peer.subscribe(f"{bus.prefix}/#")
    excluded.exclude(topic, f"{bus.prefix}/x")
    excluded.subscribe(f"{bus.prefix}/#")
    for receiver in [one.name, bus.name("nobody"), bus.name("?"), second.name, sender.name]:
        assert sender.publish_for(topic, receiver, receiver.encode() + b"\0x") == OK
    arrived = [one.name.encode() + b"\0x"]
    assert one.payloads_from(sender) == arrived
    assert second.payloads_from(sender) == arrived
    assert other.payloads_from(sender) == []
    assert excluded.payloads_from(sender) == []
    assert sender.payloads_from(sender) == [sender.name.encode() + b"\0x"]
