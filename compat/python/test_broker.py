"""The methods of `.broker`, and the broker's announcements."""

import time

import msgpack
import pytest

from peers import NOT_REGISTERED, OK

METHOD_NOT_FOUND, BAD_PARAMS, PARSE = -32601, -32602, -32700

CLIENT_KEYS = {
    "name", "kind", "source", "port", "r_frames", "r_bytes", "w_frames", "w_bytes", "queue", "instances",
}  # fmt: skip
COUNTERS = ["r_frames", "r_bytes", "w_frames", "w_bytes"]


@pytest.fixture
def caller(bus):
    return bus.peer("caller").serve()


def ask(caller, method, params=b""):
    return msgpack.unpackb(caller.call(".broker", method, params))


def clients(caller, **params):
    """The client list as a map by name."""
    listed = ask(caller, "client.list", msgpack.packb(params) if params else b"")["clients"]
    names = [client["name"] for client in listed]
    assert names == sorted(names)
    return {client["name"]: client for client in listed}


def test_the_method_test(caller):
    assert caller.call(".broker", "test") == b"\x81\xa2ok\xc3"


def test_the_method_info(caller):
    info = ask(caller, "info")
    assert info.keys() == {"author", "version"}
    assert all(isinstance(value, str) and value for value in info.values())


def test_stats_grow(bus, caller):
    before = ask(caller, "stats")
    assert before.keys() == {"uptime", *COUNTERS}
    receiver = bus.peer("receiver")
    for _ in range(10):
        assert caller.broadcast(receiver.name, bytes(1000)) == OK
    after = ask(caller, "stats")
    assert after["uptime"] >= before["uptime"]
    for direction in "rw":
        assert after[f"{direction}_frames"] >= before[f"{direction}_frames"] + 10
        assert after[f"{direction}_bytes"] >= before[f"{direction}_bytes"] + 10_000


def test_client_list(bus, caller):
    bus.peer("caller%%0")
    bus.peer("caller%%1")
    listed = clients(caller)
    assert all(client.keys() == CLIENT_KEYS for client in listed.values())
    own = listed[caller.name]
    assert own["instances"] == 3
    assert isinstance(own["port"], str)
    if bus.transport == "unix":
        assert (own["kind"], own["source"]) == ("local_ipc", None)
    else:
        host, port = own["source"].rsplit(":", 1)
        assert own["kind"] == "tcp" and host and int(port) > 0
    broker = listed[".broker"]
    assert (broker["kind"], broker["source"], broker["port"]) == ("internal", None, None)
    assert broker["instances"] == 1
    assert not any("%%" in name for name in listed)


def test_client_list_filter(bus, caller):
    names = {bus.peer(label).name for label in ["one", "two"]}
    assert clients(caller, filter=None).keys() >= {".broker", caller.name, *names}
    assert clients(caller, filter=bus.prefix).keys() == {caller.name, *names}
    assert clients(caller, filter=rf"{bus.prefix}\.(one|two)$").keys() == names
    assert clients(caller, filter=f"^{bus.prefix.upper()}").keys() == set()
    assert clients(caller, filter=f"{bus.prefix}.one", unknown=1).keys() == {bus.name("one")}


def test_clients_are_counted(bus, caller):
    sender, receiver = bus.peer("sender"), bus.peer("receiver")
    for size in [0, 10, 1000]:
        assert sender.send(receiver.name, bytes(size)) == OK
    body_bytes = 3 * (len(receiver.name) + 1) + 1010

    def counted(name):
        client = clients(caller, filter=f"^{name}$")[name]
        return [client[counter] for counter in COUNTERS]

    assert counted(sender.name) == [3, body_bytes, 3, 3 * 6]
    assert counted(receiver.name) == [0, 0, 3, body_bytes]


@pytest.mark.parametrize("size", [0, 1, 100_000, 1 << 20])
def test_benchmark(caller, size):
    params = (b"\0\x01\xff" * (size // 3 + 1))[:size]
    assert caller.call(".broker", "benchmark.test", params) == params


@pytest.mark.parametrize(
    "method, params, code",
    [
        ("test", b"\xc0", BAD_PARAMS),
        ("info", b"\x80", BAD_PARAMS),
        ("stats", b"x", BAD_PARAMS),
        ("client.list", b"\xc1", PARSE),
        ("client.list", msgpack.packb({"filter": 1}), PARSE),
        ("client.list", msgpack.packb({"filter": "("}), PARSE),
        ("none.such", b"", METHOD_NOT_FOUND),
        ("TEST", b"", METHOD_NOT_FOUND),
        ("", b"", METHOD_NOT_FOUND),
    ],
    ids=str,
)
def test_errors(caller, method, params, code):
    got, data = caller.call_error(".broker", method, params)
    assert got == code
    assert bool(data) == (code == PARSE)
    assert ask(caller, "test") == {"ok": True}


def test_the_broker_accepts_other_payloads_without_reply(caller):
    """Notifications, calls without reply, and payloads that are not RPC."""
    for payload in [b"", b"\x00note", b"\x01\0\0\0\0test\0", b"\x77", b"\x01\x01", b"\x11\x05\0\0\0"]:
        assert caller.send(".broker", payload) == OK
    assert caller.broadcast(".broker", b"x") == OK
    assert ask(caller, "test") == {"ok": True}
    assert caller.rpc.calls == {}


def test_other_reserved_names_are_not_registered(caller):
    assert caller.send(".nobody", b"x") == NOT_REGISTERED


def announcements(watcher, last):
    """All announcements up to the one about the client `last`, as (topic, event, name)."""
    seen = []
    while not seen or seen[-1][2] != last:
        frame = watcher.next()
        if frame.sender == ".broker":
            seen.append((frame.topic, *event_of(frame)))
    return seen


def event_of(frame):
    event = msgpack.unpackb(frame.payload)
    assert event.keys() == {"s", "d", "t"}
    assert abs(event["t"] / 1e9 - time.time()) < 60
    return event["s"], event["d"]


@pytest.mark.parametrize("filter_", [".broker/info", ".broker/+", ".broker/#", "#", "+/info"])
def test_clients_are_announced(bus, filter_):
    watcher = bus.peer("watcher")
    watcher.subscribe(filter_)
    peer = bus.peer("peer")
    assert (".broker/info", "reg", peer.name) in announcements(watcher, peer.name)
    peer.close()
    assert (".broker/info", "unreg", peer.name) in announcements(watcher, peer.name)


def test_secondaries_and_refusals_are_not_announced(bus):
    watcher = bus.peer("watcher")
    watcher.subscribe(".broker/info")
    primary, secondary = bus.peer("p"), bus.peer("p%%0")
    bus.refusal(primary.name)
    bus.refusal(bus.name("absent%%0"))
    secondary.close()
    primary.wait_until_unregistered(secondary.name)
    last = bus.peer("last")
    own = [(event, name) for _, event, name in announcements(watcher, last.name) if bus.prefix in name]
    assert own == [("reg", primary.name), ("reg", last.name)]


def test_announcements_can_be_excluded(bus):
    watcher, other = bus.peer("watcher"), bus.peer("other")
    watcher.exclude(".broker/info", ".broker/warn")
    watcher.subscribe("#")
    other.subscribe(".broker/info")
    excluded = bus.peer("excluded")
    announcements(other, excluded.name)  # announced by now, so the exclusion applied to it
    watcher.unexclude(".broker/info", ".broker/warn")
    announced = bus.peer("announced")
    names = [name for _, _, name in announcements(watcher, announced.name)]
    assert bus.name("excluded") not in names and watcher.connected and other.connected
