"""The programs in the documents work as printed there, and print what follows them."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest
from broker import ROOT

DOCUMENTS = ["clients/python/README.md", "docs/python.md", "docs/python-migration.md"]
SOCKET = "/tmp/elbus.sock"


def programs() -> list[tuple[str, str, str]]:
    """Returns the place, the program and its output of each block."""
    found: list[tuple[str, str, str]] = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        blocks = re.finditer(
            r"```python\n(.*?)```(?:\n\n(?:It prints:\n\n)?```text\n(.*?)```)?", text, re.DOTALL
        )
        for block in blocks:
            line = text[: block.start()].count("\n") + 1
            assert block[2] is not None, f"{document}:{line} has no output"
            found.append((f"{document}:{line}", block[1], block[2]))
    assert len(found) >= 15
    return found


@pytest.mark.parametrize(
    ("place", "program", "output"), programs(), ids=lambda value: str(value).split("\n")[0]
)
def test_program(place: str, program: str, output: str, address: str, tmp_path: pathlib.Path) -> None:
    assert SOCKET in program
    file = tmp_path / "program.py"
    file.write_text(program.replace(SOCKET, address), encoding="utf-8")
    source = str(ROOT / "clients/python/src")
    result = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": source, "PATH": ""},
    )
    assert (result.stdout, result.stderr) == (output, ""), place


def test_programs_are_typed(tmp_path: pathlib.Path) -> None:
    for number, (_, program, _) in enumerate(programs()):
        if "busrt" not in program:
            (tmp_path / f"program{number}.py").write_text(program, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--scripts-are-modules", *map(str, tmp_path.glob("*.py"))],
        capture_output=True,
        text=True,
        env={"MYPYPATH": str(ROOT / "clients/python/src"), "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
