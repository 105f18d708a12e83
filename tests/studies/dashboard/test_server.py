"""Where it listens."""

from __future__ import annotations

import socket

import pytest

from search_spaces import ConfigurationError
from studies.dashboard.server import Address, DashboardServer


@pytest.mark.parametrize(
    ("host", "is_private"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.9.1", True), ("0.0.0.0", False), ("::", False)],
)
def test_only_this_machine_reaches_loopback(host: str, is_private: bool) -> None:
    assert Address.of(host).is_private is is_private


@pytest.mark.parametrize("host", ["a..b", "127.0.0.1:80", "http://127.0.0.1", "256.256.256.256.1"])
def test_what_is_no_address_is_told(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--host: found '.*'; it cannot be looked up .*; write an address"):
        Address.of(host)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", socket.gethostname())])
def test_a_free_port_is_found_and_told(host: str, shown: str) -> None:
    with DashboardServer(Address.of(host), 0) as server:
        name, port = server.url.removeprefix("http://").rsplit(":", 1)
        assert name == shown
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10):
            pass


def test_a_busy_port_is_told_with_the_remedy() -> None:
    address = Address.of("127.0.0.1")
    with DashboardServer(address, 0) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(ConfigurationError, match=rf"--port: found {port}; another program listens .* --port 0"):
            DashboardServer(address, port)
    with DashboardServer(address, port):
        pass  # free again at once


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"--host: found '192.0.2.1'; it is not an address of this machine"):
        DashboardServer(Address.of("192.0.2.1"), 0)
