"""Programs written for busrt and busrt-async work with `elbus_client.busrt` and `elbus_client.busrt_async`:
the tests of compat/python, which are such programs, run with them in place of the packages.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from broker import ROOT, Broker

PLUGIN = """
import sys
from elbus_client import busrt, busrt_async
sys.modules["busrt"], sys.modules["busrt_async"] = busrt, busrt_async
"""

#: These tests are about reactions of the broker to clients that stop pinging, which this client never does.
OTHERS = ["test_registration.py", "test_options.py"]


@pytest.mark.parametrize(
    "file", ["test_messages.py", "test_topics.py", "test_rpc.py", "test_broker.py", *OTHERS]
)
def test_programs_for_busrt(file: str, shared_broker: Broker, tmp_path: pathlib.Path) -> None:
    (tmp_path / "with_shim.py").write_text(PLUGIN)
    paths = [str(tmp_path), str(ROOT / "clients/python/src")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "ELBUS_UNIX": shared_broker.socket,
        "ELBUS_TCP": shared_broker.tcp,
    }
    command = [sys.executable, "-m", "pytest", "-p", "with_shim", str(ROOT / "compat/python" / file)]
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT / "compat/python"
    )
    assert result.returncode == 0, result.stdout[-4000:]
