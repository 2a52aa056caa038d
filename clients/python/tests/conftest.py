"""Fixtures: a broker for all tests that need nothing of their own, and a unique prefix for names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from broker import Broker

_numbers = itertools.count(1)

RETAIN = """
[[plugin]]
name = "local"
builtin = "unix"
config = { path = "SOCKET" }

[[plugin]]
name = "rpc"
builtin = "rpc"

[[plugin]]
name = "retain"
builtin = "retain"
[[plugin.config.topic]]
filter = "#"
"""

ACCESS = """
[[plugin]]
name = "local"
builtin = "unix"
config = { path = "SOCKET" }

[[plugin]]
name = "rpc"
builtin = "rpc"

[[plugin]]
name = "access"
builtin = "acl"
[plugin.config]
default = "deny"
[[plugin.config.client]]
name = "plant.*"
send = ["allow plant.*"]
subscribe = ["allow open/#"]
publish = ["allow open/#"]
"""


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    """A broker that no test stops."""
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def address(shared_broker: Broker) -> str:
    """The socket of the shared broker."""
    return shared_broker.socket


@pytest.fixture
def prefix() -> str:
    """A prefix for names and topics that no other test uses."""
    return f"test{next(_numbers)}"


@pytest.fixture(scope="session")
def retain_address() -> Iterator[str]:
    """The socket of a broker that retains all topics."""
    broker = Broker(RETAIN)
    yield broker.socket
    broker.close()


@pytest.fixture(scope="session")
def access_address() -> Iterator[str]:
    """The socket of a broker with access rules."""
    broker = Broker(ACCESS)
    yield broker.socket
    broker.close()


def pytest_configure() -> None:
    """With ELBUS_UVLOOP all tests run under uvloop."""
    if os.environ.get("ELBUS_UVLOOP"):
        import uvloop

        uvloop.install()
