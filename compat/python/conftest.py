"""Fixtures: each test runs over each address of the broker and with each of the Python clients.

The broker is running already; ELBUS_UNIX holds its socket path and ELBUS_TCP its `host:port`.
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
    """All variants at once, for the tests that take long."""
    buses = [Bus(transport, os.environ[TRANSPORTS[transport]], flavour) for transport, flavour in VARIANTS]
    yield buses
    for bus in buses:
        bus.close()
    # The clients complain so about acknowledgements and replies that nobody asked for.
    assert "orphaned" not in "".join(record.getMessage() for record in caplog.get_records("call"))


@pytest.fixture(params=range(len(VARIANTS)), ids=["-".join(variant) for variant in VARIANTS])
def bus(request, buses):
    return buses[request.param]


@pytest.fixture(params=LIBRARIES)
def other_flavour(request):
    """The flavour of the second party, for tests in which two clients talk to each other."""
    return request.param
