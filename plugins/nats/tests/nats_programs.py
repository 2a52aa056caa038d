"""nats-py reads and writes mirrored topics: nats_programs.py SOCKET_OF_MILL SOCKET_OF_PRESS URL."""

import asyncio
import queue
import sys

import busrt
import nats

LIMIT = 30


def connect(path, name):
    client = busrt.client.Client(path, name)
    frames = queue.Queue()
    client.on_frame = frames.put
    client.connect()
    return client, frames


async def main(mill, press, url):
    program = await nats.connect(url)
    subscription = await program.subscribe("sensors.>")
    await program.flush()
    panels = [connect(path, name) for path, name in ((mill, "m"), (press, "p"))]
    for client, _ in panels:
        client.subscribe(["sensors/#"])
        # it is acknowledged after the subscription
        client.send("nobody", busrt.client.Frame(b"", busrt.client.OP_MESSAGE, 1)).wait_completed(LIMIT)

    # from NATS to the clients of both nodes, once each
    await program.publish("sensors.boiler.temperature", b"71.5")
    await program.flush()
    assert (await subscription.next_msg(LIMIT)).data == b"71.5"
    for _, frames in panels:
        frame = await asyncio.to_thread(frames.get, timeout=LIMIT)
        assert (frame.sender, frame.topic, bytes(frame.payload)) == ("@nats", "sensors/boiler/temperature", b"71.5")

    # from a client to NATS, once, although both nodes mirror the topic
    client, _ = panels[0]
    frame = busrt.client.Frame(b"20.5", tp=busrt.client.OP_PUBLISH, qos=1)
    client.send("sensors/a.b/c", frame).wait_completed(LIMIT)
    message = await subscription.next_msg(LIMIT)
    assert (message.subject, message.data) == ("sensors.a//b.c", b"20.5"), message
    await program.publish("sensors.end", b"end")
    assert (await subscription.next_msg(LIMIT)).subject == "sensors.end", "something was repeated"
    for (_, frames), sender in zip(panels, ("m", "@mill.m")):
        for expected in (sender, "@nats"):
            frame = await asyncio.to_thread(frames.get, timeout=LIMIT)
            assert frame.sender == expected, (frame.sender, expected)
        assert frames.empty()
    await program.drain()
    print("nats-py: mirrored topics in both directions")


asyncio.run(main(*sys.argv[1:]))
