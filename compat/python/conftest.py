"""Fixtures: each test runs over both addresses of the broker and with both Python clients.

The broker must be running; ELBUS_UNIX holds the path of its socket and ELBUS_TCP its `host:port`.
"""

import os

import pytest

from peers import LIBRARIES, Bus

TRANSPORTS = {"unix": "ELBUS_UNIX", "tcp": "ELBUS_TCP"}
VARIANTS = [(transport, flavour) for transport in TRANSPORTS for flavour in LIBRARIES]


def pytest_configure():
    for variable in TRANSPORTS.values():
        if not os.environ.get(variable):
            pytest.exit(f"{variable} must hold an address of a running broker", returncode=2)


@pytest.fixture
def buses(caplog):
    """All variants, for long tests that use them at the same time."""
    buses = [Bus(transport, os.environ[TRANSPORTS[transport]], flavour) for transport, flavour in VARIANTS]
    yield buses
    for bus in buses:
        bus.close()
    # The clients log this word for acknowledgements and replies without a pending operation.
    assert "orphaned" not in "".join(record.getMessage() for record in caplog.get_records("call"))


@pytest.fixture(params=range(len(VARIANTS)), ids=["-".join(variant) for variant in VARIANTS])
def bus(request, buses):
    return buses[request.param]


@pytest.fixture(params=LIBRARIES)
def second_flavour(request):
    """The flavour of the second client, for tests with two clients."""
    return request.param
