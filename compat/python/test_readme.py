"""The Python program in README.md works as printed there."""

import os
import pathlib

import busrt

from peers import wait_until

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_program():
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    socket = "/tmp/elbus.sock"
    assert code.count(socket) == 1
    frames = []
    receiver = busrt.client.Client(os.environ["ELBUS_UNIX"], "plant.receiver")
    receiver.on_frame = frames.append
    receiver.connect()
    receiver.subscribe(["temperature/+"])
    program = {}
    try:
        # The subscription has no acknowledgement; a later operation confirms that it was processed.
        receiver.send("plant.receiver", busrt.client.Frame(b"marker")).wait_completed()
        exec(compile(code.replace(socket, os.environ["ELBUS_UNIX"]), str(README), "exec"), program)
        wait_until(lambda: len(frames) >= 2, "the publication")
    finally:
        for client in (receiver, program.get("sensor")):
            if client is not None:
                client.disconnect()
    assert [(frame.sender, bytes(frame.payload)) for frame in frames] == [
        ("plant.receiver", b"marker"),
        ("plant.sensor", b"71.5"),
    ]
    assert frames[1].topic == "temperature/boiler"
