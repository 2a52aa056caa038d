"""Registration: valid names, when a name is free again, secondaries, keep-alive."""

import time

import pytest

from peers import BAD_DATA, BUSY, NOT_REGISTERED, OK


def test_a_taken_name_is_refused(bus):
    owner = bus.peer("owner")
    assert bus.refusal(owner.name) == BUSY
    assert owner.send(owner.name, b"unharmed") == OK
    assert owner.next().payload == b"unharmed"


def test_names_are_case_sensitive(bus):
    lower, upper = bus.peer("name"), bus.peer("NAME")
    assert lower.send(upper.name, b"x") == OK
    assert upper.next().sender == lower.name


@pytest.mark.parametrize("name", ["", ".", ".broker", ".mine"])
def test_invalid_names_are_refused(bus, name):
    assert bus.refusal(name) == BAD_DATA


def test_disconnecting_frees_the_name(bus):
    watcher, peer = bus.peer("watcher"), bus.peer("peer")
    peer.subscribe(f"{bus.prefix}/#")
    peer.close()
    watcher.wait_until_unregistered(peer.name)
    successor = bus.join(peer.name)
    assert watcher.publish(f"{bus.prefix}/x", b"subscription of the previous client") == OK
    assert watcher.send(successor.name, b"welcome") == OK
    assert successor.payloads_from(watcher) == [b"welcome"]


def test_secondaries_are_clients_of_their_own(bus):
    other, primary = bus.peer("other"), bus.peer("p")
    secondaries = [bus.peer(f"p%%{suffix}") for suffix in ["0", "1", "", "x%%y"]]
    secondaries[0].subscribe(f"{bus.prefix}/#")
    for peer in secondaries:
        assert other.send(peer.name, peer.name.encode()) == OK
        assert peer.send(primary.name, b"up") == OK
        frame = primary.next()
        assert (frame.sender, frame.primary_sender) == (peer.name, primary.name)
    assert other.publish(f"{bus.prefix}/x", b"publication") == OK
    assert other.broadcast(f"{bus.prefix}.?", b"broadcast") == OK
    assert primary.payloads_from(other) == [b"broadcast"]
    for number, peer in enumerate(secondaries):
        publication = [b"publication"] if number == 0 else []
        assert peer.payloads_from(other) == [peer.name.encode(), *publication, b"broadcast"]
    assert bus.refusal(secondaries[0].name) == BUSY


def test_a_secondary_needs_its_primary(bus):
    assert bus.refusal(bus.name("p%%0")) == NOT_REGISTERED
    bus.peer("p")
    bus.peer("p%%0")


def test_secondaries_are_disconnected_with_their_primary(bus):
    other, primary = bus.peer("other"), bus.peer("p")
    secondaries = [bus.peer("p%%0"), bus.peer("p%%1")]
    primary.close()
    for peer in secondaries:
        other.wait_until_unregistered(peer.name)
        peer.wait_until_disconnected()


def test_a_secondary_disconnects_alone(bus):
    primary, first, second = bus.peer("p"), bus.peer("p%%0"), bus.peer("p%%1")
    first.close()
    primary.wait_until_unregistered(first.name)
    assert second.send(primary.name, b"still here") == OK
    assert primary.next().payload == b"still here"
    bus.join(first.name)


def test_many_clients_at_once(bus):
    peers = [bus.peer(f"n{number}") for number in range(50)]
    for peer, neighbour in zip(peers, peers[1:] + peers[:1]):
        assert peer.send(neighbour.name, b"next") == OK
    assert [peer.next().sender for peer in peers[1:]] == [peer.name for peer in peers[:-1]]


def test_idle_clients_stay(buses):
    """The clients ping every second; the broker disconnects clients that are silent for 6.25 s."""
    peers = [bus.peer("idle") for bus in buses]
    time.sleep(7)
    for peer in peers:
        assert peer.send(peer.name, b"awake") == OK
        assert peer.next().payload == b"awake"
