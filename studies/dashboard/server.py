"""The address and the web server of the dashboard.

The server is waitress instead of `wsgiref`: it parses requests strictly, a slow or broken client occupies no thread,
and the fixed number of threads limits the database connections.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from wsgiref.types import WSGIApplication

import waitress
from waitress import wasyncore

from search_spaces.errors import ConfigurationError

_THREADS = 8
_LOOP_S = 1.0  # between checks for idle connections
_SHUTDOWN_S = 0.5  # wait for requests in progress
_MAX_BODY_BYTES = 64 * 1024  # allowed requests have no body
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Address:
    """An address of this machine, at which the dashboard listens.

    Attributes:
        host: The host as the user wrote it.
        ip: The IP address to which the host resolves.
        family: ``AF_INET`` (IPv4) or ``AF_INET6`` (IPv6).
    """

    host: str
    ip: str
    family: socket.AddressFamily

    @classmethod
    def of(cls, host: str) -> Address:
        """Resolve a host name or an IP address.

        Raises:
            ConfigurationError: The host cannot be resolved.
        """
        try:
            family, _, _, _, socket_address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"--host: found {host!r}; the host cannot be resolved ({reason}); "
                "use an address of this machine, for example 127.0.0.1"
            ) from error
        return cls(host, str(socket_address[0]), family)

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the address."""
        return ipaddress.ip_address(self.ip.partition("%")[0]).is_loopback

    @property
    def shown_host(self) -> str:
        """The host as written in a URL; the name of this machine if the server listens on all addresses."""
        if ipaddress.ip_address(self.ip.partition("%")[0]).is_unspecified:
            return socket.gethostname()
        return f"[{self.host}]" if ":" in self.host else self.host

    def names(self) -> frozenset[str]:
        """Return the host names and IP addresses by which browsers may call this address, in lower case."""
        names = {*_LOOPBACK_NAMES, self.host.casefold(), self.ip}
        if not self.is_private:
            names |= {socket.gethostname().casefold(), socket.getfqdn().casefold()}
        return frozenset(names)


class DashboardServer:
    """A server that listens as soon as it is created, so that a port in use is reported early.

    Attributes:
        url: The server's URL, without a path.
    """

    def __init__(self, address: Address, port: int) -> None:
        """Listen on a port; 0 selects a free port.

        Raises:
            ConfigurationError: The port is in use, or this process has no permission to use it.
        """
        try:
            self._socket = socket.create_server((address.ip, port), family=address.family)
        except OSError as error:
            raise ConfigurationError(_listen_problem(error, address, port)) from error
        self.url = f"http://{address.shown_host}:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def serve(self, app: WSGIApplication, *, debug: bool = False) -> None:
        """Serve requests until a signal handler raises an exception; then close the connections.

        Args:
            app: The web application.
            debug: Whether to show warnings and log messages of libraries.
        """
        connections: dict[int, Any] = {}
        server = waitress.create_server(
            app,
            map=connections,
            sockets=[self._socket],
            threads=_THREADS,
            ident=None,
            max_request_body_size=_MAX_BODY_BYTES,
        )
        with _silence(debug):
            try:
                # `server.run` would wait too long for requests in progress when it exits.
                wasyncore.loop(timeout=_LOOP_S, map=connections, use_poll=True)
            finally:
                server.task_dispatcher.shutdown(timeout=_SHUTDOWN_S)
                wasyncore.close_all(connections)


@contextmanager
def _silence(debug: bool) -> Iterator[None]:
    """Suppress warnings and log messages of libraries in a ``with`` statement.

    Optuna, optuna-dashboard and waitress would log plots with too few trials, slow requests and closed connections.
    With `debug`, only waitress's messages about queued requests are suppressed.
    """
    names = ("waitress.queue",) if debug else ("optuna", "optuna_dashboard", "waitress")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _listen_problem(error: OSError, address: Address, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"--port: found {port}; the port is in use (by another dashboard?); "
            "choose another port, or --port 0 for any free port"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port: found {port}; ports below 1024 need root privileges; choose another port, for example 8080"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host: found {address.host!r}; expected an address of this machine, for example 127.0.0.1"
    reason = error.strerror or error
    return f"--host, --port: found {address.host!r}, {port}; listening failed: {reason}; choose another host or port"
