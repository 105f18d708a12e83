"""Where the dashboard listens, and the server that listens there.

waitress rather than the server of Python's own library: it reads requests strictly, a slow or broken browser takes
none of its threads, and their number is fixed, which keeps database connections few.
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
_LOOP_S = 1.0  # between looks at idle connections
_GOODBYE_S = 0.5  # for requests that are being answered
_LARGEST_BODY = 64 * 1024  # of a request; nothing is ever sent here
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Address:
    """An address of this machine.

    Attributes:
        host: As the user wrote it.
        ip: What it means.
        family: IPv4 or IPv6.
    """

    host: str
    ip: str
    family: socket.AddressFamily

    @classmethod
    def of(cls, host: str) -> Address:
        """Look up a name or an address.

        Raises:
            ConfigurationError: There is no such name.
        """
        try:
            family, _, _, _, place = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"--host: found {host!r}; it cannot be looked up ({reason}); "
                "write an address of this machine, for example 127.0.0.1"
            ) from error
        return cls(host, str(place[0]), family)

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.ip.partition("%")[0]).is_loopback

    @property
    def shown_host(self) -> str:
        """What a browser calls it: the machine's name, where it means all addresses of the machine."""
        if ipaddress.ip_address(self.ip.partition("%")[0]).is_unspecified:
            return socket.gethostname()
        return f"[{self.host}]" if ":" in self.host else self.host

    def names(self) -> frozenset[str]:
        """Return the names by which browsers may know it, in lower case."""
        names = {*_LOOPBACK_NAMES, self.host.casefold(), self.ip}
        if not self.is_private:
            names |= {socket.gethostname().casefold(), socket.getfqdn().casefold()}
        return frozenset(names)


class DashboardServer:
    """A socket that listens already, so that a port that is taken is noticed before anything else is done.

    Attributes:
        url: What to type into a browser, without a path.
    """

    def __init__(self, address: Address, port: int) -> None:
        """Listen on a port; 0 takes one that is free.

        Raises:
            ConfigurationError: If another program listens there, or this one may not.
        """
        try:
            self._socket = socket.create_server((address.ip, port), family=address.family)
        except OSError as error:
            raise ConfigurationError(_listen_problem(error, address, port)) from error
        self.url = f"http://{address.shown_host}:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        """Do nothing: it listens already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop listening."""
        self._socket.close()

    def serve(self, app: WSGIApplication, *, debug: bool = False) -> None:
        """Answer requests until an exception ends it, as a signal raises it; connections are closed then.

        Args:
            app: The web application.
            debug: Let libraries warn and log, which else nobody hears of.
        """
        connections: dict[int, Any] = {}
        server = waitress.create_server(
            app,
            map=connections,
            sockets=[self._socket],
            threads=_THREADS,
            ident=None,
            max_request_body_size=_LARGEST_BODY,
        )
        with _silence(debug):
            try:
                # Not `server.run`: it waits for requests at work longer than whoever ends a program does.
                wasyncore.loop(timeout=_LOOP_S, map=connections, use_poll=True)
            finally:
                server.task_dispatcher.shutdown(timeout=_GOODBYE_S)
                wasyncore.close_all(connections)


@contextmanager
def _silence(debug: bool) -> Iterator[None]:
    """Keep from users what libraries say of plots of few trials, of slow requests and of closed connections.

    That requests wait for each other on a busy machine is no news to those who look for errors either.
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
            f"--port: found {port}; another program listens there already (another dashboard?); "
            "choose another one, or --port 0 for any that is free"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port: found {port}; ports below 1024 are the administrator's; choose another one, for example 8080"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host: found {address.host!r}; it is not an address of this machine; write one that is"
    return f"--host, --port: found {address.host!r}, {port}; nothing can listen there: {error.strerror or error}"
