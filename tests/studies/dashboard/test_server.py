"""The address and the server of the dashboard."""

import socket

import pytest

from search_spaces import ConfigurationError
from studies.dashboard.server import Address, DashboardServer


@pytest.mark.parametrize(
    ("host", "is_private"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.9.1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_addresses_are_private(host, is_private):
    assert Address.of(host).is_private is is_private


@pytest.mark.parametrize("host", ["a..b", "127.0.0.1:80", "http://127.0.0.1", "256.256.256.256.1"])
def test_invalid_host_is_refused(host):
    with pytest.raises(ConfigurationError, match=r"--host: found '.*'; the host cannot be resolved .*; use an address"):
        Address.of(host)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", socket.gethostname())])
def test_port_0_selects_a_free_port(host, shown):
    with DashboardServer(Address.of(host), 0) as server:
        name, port = server.url.removeprefix("http://").rsplit(":", 1)
        assert name == shown
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10):
            pass


def test_port_in_use_is_refused_with_a_remedy():
    address = Address.of("127.0.0.1")
    with DashboardServer(address, 0) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(ConfigurationError, match=rf"--port: found {port}; the port is in use .* --port 0"):
            DashboardServer(address, port)
    with DashboardServer(address, port):
        pass  # the port is free again at once


def test_address_of_another_machine_is_refused():
    with pytest.raises(ConfigurationError, match=r"--host: found '192.0.2.1'; expected an address of this machine"):
        DashboardServer(Address.of("192.0.2.1"), 0)
