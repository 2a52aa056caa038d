"""Existing Python clients at two nodes of a bridged bus: python_clients.py SOCKET_OF_MILL SOCKET_OF_PRESS.

They know nothing of the bridge: names with a node in front are names like any other.
"""

import queue
import sys
import time

import busrt

LIMIT = 30


def connect(path, name):
    client = busrt.client.Client(path, name)
    frames = queue.Queue()
    client.on_frame = frames.put
    client.connect()
    return client, frames


def send_until_delivered(client, target, payload):
    """Sends until the other node knows the target: its acknowledgement says so."""
    until = time.monotonic() + LIMIT
    while True:
        code = client.send(target, busrt.client.Frame(payload, busrt.client.OP_MESSAGE, 1)).wait_completed(LIMIT)
        if code == 1:
            return
        assert time.monotonic() < until, f"{target} is not reached"
        time.sleep(0.05)


def main(mill, press):
    pump, at_pump = connect(mill, "plant.pump")
    panel, at_panel = connect(press, "plant.panel")
    send_until_delivered(panel, "@mill.plant.pump", b"start")
    frame = at_pump.get(timeout=LIMIT)
    assert (frame.sender, bytes(frame.payload)) == ("@press.plant.panel", b"start"), frame
    send_until_delivered(pump, frame.sender, b"started")
    assert bytes(at_panel.get(timeout=LIMIT).payload) == b"started"

    panel.subscribe(["sensors/#"])
    until = time.monotonic() + LIMIT
    while True:
        pump.send("sensors/boiler", busrt.client.Frame(b"71.5", tp=busrt.client.OP_PUBLISH)).wait_completed(LIMIT)
        try:
            frame = at_panel.get(timeout=0.1)
            break
        except queue.Empty:
            assert time.monotonic() < until, "no publication"
    assert (frame.sender, frame.topic, bytes(frame.payload)) == ("@mill.plant.pump", "sensors/boiler", b"71.5"), frame

    rpc = busrt.rpc.Rpc(pump)
    rpc.on_call = lambda event: bytes(event.get_payload()).upper()
    calls = busrt.rpc.Rpc(panel)
    result = calls.call("@mill.plant.pump", busrt.rpc.Request("echo", b"across")).wait_completed(LIMIT)
    assert bytes(result.get_payload()) == b"ACROSS", result
    print("Python clients: messages, publications and calls across")


main(*sys.argv[1:])
