"""The codec with the data of protocol/conformance, each case whole, split at every byte, and byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from data import Case, cases

from elbus_client.frame import Frame
from elbus_client.wire import rpc, subscription
from elbus_client.wire.deliveries import NAMES_BYTES, DeliveryParser, FrameError
from elbus_client.wire.requests import encode_hello
from elbus_client.wire.subscription import Options
from elbus_client.wire.topics import matches


class Queue:
    def __init__(self) -> None:
        self.incoming: list[Frame] = []


class Router:
    """Collects everything in order."""

    def __init__(self) -> None:
        self.frames = Queue()
        self.touched: list[Queue] = []
        self.topics: dict[bytes, tuple[str, tuple[Queue, ...]]] = {}
        self.acks: list[tuple[int, int]] = []

    def add_topic(self, topic: bytes) -> tuple[str, tuple[Queue, ...]]:
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            raise FrameError("not-utf8 topic") from None
        return text, (self.frames,)

    def on_rpc(self, frame: Frame) -> None:
        self.frames.incoming.append(frame)

    def on_report(self, frame: Frame) -> None:
        raise AssertionError("every topic has a consumer")


def parse(case: Case, pieces: list[bytes]) -> tuple[list[dict[str, Any]], str]:
    """Returns what the parser makes of the pieces of a case, and how it ends."""
    router = Router()
    found: list[dict[str, Any]] = []
    parser: DeliveryParser[Queue] = DeliveryParser(
        case.limit - NAMES_BYTES, router, lambda id, code: found.append({"op_id": id, "code": code})
    )
    rest, outcome = b"", "end"
    for piece in pieces:
        rest += piece
        try:
            rest = rest[parser.parse(rest) :]
        except FrameError as error:
            outcome = f"error {error}"
            break
        finally:
            found += [{"frame": frame} for frame in router.frames.incoming]
            router.frames.incoming = []
    if rest and outcome == "end":
        outcome = "more"
    return found, outcome


def splits(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield from ([data[:at], data[at:]] for at in range(min(len(data), 200)))
    yield [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("case", cases("deliveries.txt"), ids=lambda c: c.name)
def test_deliveries(case: Case) -> None:
    expected = [(kind, fields) for kind, fields in case.items if kind != "nop"]
    for pieces in splits(case.input):
        found, outcome = parse(case, pieces)
        assert outcome == (case.outcome if case.input else "end")
        assert len(found) == len(expected)
        for item, (kind, fields) in zip(found, expected, strict=True):
            if kind == "ack":
                assert item["op_id"] == int.from_bytes(fields["op_id"], "little")
                assert item["code"] == fields["code"][0]
                continue
            frame: Frame = item["frame"]
            assert frame.kind.name.lower() == kind
            assert frame.sender.encode() == fields["sender"]
            assert frame.payload == fields["payload"]
            assert frame.realtime == bool(fields["realtime"][0])
            assert frame.topic.encode() == fields.get("topic", b"")


@pytest.mark.parametrize("case", cases("rpc.txt"), ids=lambda c: c.name)
def test_rpc(case: Case) -> None:
    data = case.input
    kind = {0x00: "notification", 0x01: "request", 0x11: "reply", 0x12: "error"}.get(data[0] if data else -1)
    decoded: dict[str, bytes] | None = None
    if kind == "notification":
        decoded = {"payload": data[1:]}
    elif kind == "request" and (request := rpc.decode_request(data)):
        decoded = {"call_id": request[0].to_bytes(4, "little"), "method": request[1], "params": request[2]}
        assert rpc.encode_request_head(request[0], request[1] + b"\0") + request[2] == data
    elif kind == "reply" and (reply := rpc.decode_reply(data)):
        decoded = {"call_id": reply[0].to_bytes(4, "little"), "result": reply[1]}
        assert rpc.encode_reply_head(reply[0]) + reply[1] == data
    elif kind == "error" and (error := rpc.decode_error(data)):
        code = error[1].to_bytes(2, "little", signed=True)
        decoded = {"call_id": error[0].to_bytes(4, "little"), "code": code, "data": error[2]}
        assert rpc.encode_error_head(error[0], error[1]) + error[2] == data
    if case.outcome == "end":
        assert (kind, decoded) == case.items[0]
    else:
        assert decoded is None


@pytest.mark.parametrize("case", cases("subscriptions.txt"), ids=lambda c: c.name)
def test_subscriptions(case: Case) -> None:
    text = case.input.decode()
    if case.outcome != "end":
        with pytest.raises(subscription.SubscriptionError) as raised:
            subscription.parse(text)
        assert f"error {raised.value}" == case.outcome
        assert subscription.topic_filter(text) == text
        return
    parsed, (_, fields) = subscription.parse(text), case.items[0]
    assert parsed.filter.encode() == fields["filter"] == subscription.topic_filter(text).encode()
    if parsed.filter != text:
        every = None if parsed.every_ms is None else parsed.every_ms / 1000
        options = Options(parsed.share, parsed.key, parsed.latest, every, parsed.lossy)
        assert options.prefix() + parsed.filter == text
        named = {key for key in ("share", "key") if key in fields}
        assert set(options.names()) == named | ({fields["mode"].decode()} if "mode" in fields else set())


@pytest.mark.parametrize(
    ("filter", "matching", "others"),
    [
        ("a/b", ["a/b"], ["a", "a/b/c", "a/", "A/b", "/a/b"]),
        ("a/+", ["a/b", "a/", "a/+"], ["a", "a/b/c", "b/a"]),
        ("a/+/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c"]),
        ("a/#", ["a/", "a/b", "a/b/c", "a/#"], ["a", "b/a", "ab/c"]),
        ("a/#/ignored", ["a/b", "a/b/c"], ["a"]),
        ("+/#", ["a/b", "a/b/c", "/b"], ["a"]),
        ("#", ["", "/x", "a"], []),
        ("a+/b#", ["a+/b#"], ["ab/b", "a/b"]),
        ("", [""], ["a"]),
    ],
)
def test_filters(filter: str, matching: list[str], others: list[str]) -> None:
    assert [matches(filter, topic) for topic in matching] == [True] * len(matching)
    assert [matches(filter, topic) for topic in others] == [False] * len(others)


def test_hello() -> None:
    assert encode_hello("plant.a") == b"\xeb\x01\x00\x07\x00plant.a"
