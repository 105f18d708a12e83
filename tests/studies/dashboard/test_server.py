"""The address and the server of the dashboard."""

import contextlib
import http.client
import socket

import pytest

from search_spaces import ConfigurationError
from studies.dashboard.server import Address, DashboardServer

SCRIPT = b"GET /static/bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW = {
    "half a request": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "half a body": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf",
    "a response that is not read": SCRIPT,
    "several responses that are not read": 4 * SCRIPT,
}


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


@contextlib.contextmanager
def slow_clients(port, request, count=500):
    """Keep connections open that send nothing after the request and read no response."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            with contextlib.suppress(ConnectionError):  # the server closed this connection to accept a newer one
                client.sendall(request)
        yield


def size_of(port, path):
    """Return the length of the response to an ordinary request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return len(response.read())


@pytest.mark.parametrize("request_of_slow_clients", SLOW.values(), ids=SLOW)
def test_500_slow_clients_do_not_block_a_normal_client(request_of_slow_clients, full_study, serve):
    with serve(full_study.folder) as dashboard:
        port = int(dashboard.url.split(":")[2].partition("/")[0])
        with slow_clients(port, request_of_slow_clients):
            assert size_of(port, "/api/studies/1?after=0") > 100
            assert size_of(port, "/static/bundle.js") > 1_000_000
        assert dashboard.process.poll() is None


def test_more_slow_clients_than_open_files_do_not_block_a_normal_client(full_study, serve):
    with serve(full_study.folder, max_files=256) as dashboard:
        port = int(dashboard.url.split(":")[2].partition("/")[0])
        with slow_clients(port, SLOW["half a request"]):
            assert size_of(port, "/api/studies/1?after=0") > 100
        with slow_clients(port, SCRIPT):
            pass
        assert size_of(port, "/static/bundle.js") > 1_000_000
        assert dashboard.process.poll() is None
