"""A real broker for the tests. Owns its process, its socket and its log."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[3]


def elbusd() -> str:
    """Returns the path of the broker: ELBUSD, or what cargo has built."""
    configured = os.environ.get("ELBUSD")
    built = [str(ROOT / "target" / kind / "elbusd") for kind in ("release", "debug")]
    candidates = [configured] if configured else built
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return str(pathlib.Path(candidate).resolve())
    raise AssertionError(f"no broker at {candidates}: build elbusd, or set ELBUSD")


class Broker:
    """A running broker at a UNIX socket and a TCP port."""

    def __init__(self, config: str | None = None, arguments: tuple[str, ...] = ()) -> None:
        self.folder = tempfile.mkdtemp(prefix="elbus-")
        self.socket = str(pathlib.Path(self.folder) / "bus.sock")
        self.tcp = ""
        self.config = config
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts the broker and waits until it listens."""
        command = [elbusd(), *self.arguments]
        if self.config is None:
            command += ["--plugins", "builtin", "--bind", self.socket, "--bind", self.tcp or "127.0.0.1:0"]
        else:
            path = pathlib.Path(self.folder) / "broker.toml"
            path.write_text(self.config.replace("SOCKET", self.socket).replace("FOLDER", self.folder))
            command += ["--config", str(path)]
        out = pathlib.Path(self.folder) / "out"
        with out.open("wb") as stdout, (pathlib.Path(self.folder) / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=stdout, stderr=log)
        deadline = time.monotonic() + 30
        while "\n  plugin " not in (text := out.read_text()):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)
        found = re.search(r"listening on (?:tcp|tls):(\S+)", text)
        self.tcp = found[1] if found else ""

    def log(self) -> str:
        """Returns what the broker has logged."""
        return (pathlib.Path(self.folder) / "log").read_text()

    def kill(self) -> None:
        """Kills the broker."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Stops the broker, which then neither reads nor writes."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Reverts :meth:`pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends the broker and removes its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
