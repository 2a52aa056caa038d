"""TCP and TLS with a real broker, and everything once more under uvloop."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator

import pytest
from broker import Broker
from support import run, soon

import elbus_client as elbus
from elbus_client import blocking

TLS = """
[[plugin]]
name = "network"
builtin = "tcp"
[plugin.config]
bind = "127.0.0.1:0"
[plugin.config.tls]
certificate = "CERTS/broker.pem"
key = "CERTS/broker.key"
client_ca = "CERTS/ca.pem"

[[plugin]]
name = "rpc"
builtin = "rpc"
"""

KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: no openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)

    openssl(
        f"req -x509 {KEY} -keyout ca.key -out ca.pem -subj /CN=authority -days 2 "
        "-addext keyUsage=critical,keyCertSign,cRLSign"
    )
    for name in ("broker", "client"):
        openssl(f"req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 "
            f"-extfile {name}.ext"
        )
    return folder


@pytest.fixture(scope="module")
def tls_address(certificates: pathlib.Path) -> Iterator[str]:
    broker = Broker(TLS.replace("CERTS", str(certificates)))
    yield f"tls://{broker.tcp}"
    broker.close()


def context(certificates: pathlib.Path, client: bool = True) -> ssl.SSLContext:
    """Returns the context of a client with or without a certificate."""
    made = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if client:
        made.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return made


@run
async def test_tcp(shared_broker: Broker, prefix: str) -> None:
    async with elbus.connect(shared_broker.tcp, f"{prefix}.a") as client:
        await client.send(client.name, bytes(3_000_000))
        frame = await soon(client.frames.next())
        assert frame and len(frame.payload) == 3_000_000


@run
async def test_tls(tls_address: str, certificates: pathlib.Path, prefix: str) -> None:
    async with elbus.connect(tls_address, f"{prefix}.a", tls=context(certificates)) as client:
        for size in (0, 1, 20_000, 5_000_000):
            await client.send(client.name, bytes(size))
            frame = await soon(client.frames.next())
            assert frame and len(frame.payload) == size
        for number in range(5000):
            await client.send(client.name, str(number), elbus.Qos.NO)
        got = [await soon(client.frames.next()) for _ in range(5000)]
        assert [int(frame.payload) for frame in got if frame] == list(range(5000))
        info = await client.call_as(dict[str, object], ".broker", "client.info", {"name": client.name})
        assert info["kind"] == "tls" and "dns:localhost" in info["certificate_names"]  # type: ignore[operator]
    async with elbus.connect(tls_address, f"{prefix}.a", tls=context(certificates)):
        pass  # the name is free


def test_tls_blocking(tls_address: str, certificates: pathlib.Path, prefix: str) -> None:
    with blocking.connect(tls_address, f"{prefix}.a", tls=context(certificates)) as client:
        client.send(client.name, "hi")
        assert next(client.frames).payload == b"hi"


@run
async def test_refused_certificates(tls_address: str, certificates: pathlib.Path, prefix: str) -> None:
    with pytest.raises(elbus.TlsError, match="check the certificates"):
        await elbus.connect(tls_address, f"{prefix}.a")  # the authority is unknown
    with pytest.raises(elbus.TlsError, match="check the certificates"):
        await elbus.connect(tls_address, f"{prefix}.a", tls=context(certificates, client=False))
    with pytest.raises(elbus.Error):
        await elbus.connect(tls_address.removeprefix("tls://"), f"{prefix}.a", timeout=1)


UNDER_UVLOOP = ["test_broker.py", "test_faults.py", "test_bad_input.py", "test_transports.py"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", UNDER_UVLOOP)
def test_under_uvloop(file: str) -> None:
    if os.environ.get("ELBUS_UVLOOP"):
        pytest.skip("runs under uvloop")
    pytest.importorskip("uvloop", reason="NOT TESTED: no uvloop")
    here = pathlib.Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-m", "pytest", str(here / file), "-k", "not killed_again and not under_uvloop"],
        capture_output=True,
        text=True,
        timeout=550,
        env=os.environ | {"ELBUS_UVLOOP": "1"},
        cwd=here.parent,
    )
    assert result.returncode == 0, result.stdout[-4000:]


def test_the_loop_is_that_of_the_environment() -> None:
    async def name() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert asyncio.run(name()).startswith("uvloop") == bool(os.environ.get("ELBUS_UVLOOP"))
