"""Show a study in the browser with a read-only optuna-dashboard.

Examples:
  khmer-tuner dashboard
  khmer-tuner dashboard --port 0
  khmer-tuner dashboard --port 0 --host 0.0.0.0 --public

Everything in optuna-dashboard that would change the study is disabled. To open
it on another machine, prefer `ssh -L 8080:127.0.0.1:8080 HOST` to --public.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, collector, print_message
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_flag, add_option, add_study_options, non_empty, whole_number
from tuner.cli.output import print_lines

if TYPE_CHECKING:
    from studies.dashboard.server import Address

_LARGEST_PORT = 65535


def _add_options(parser: argparse.ArgumentParser) -> None:
    port = "TCP port to listen on; 0 chooses a free port"
    add_option(parser, "--port", "N", whole_number(0, _LARGEST_PORT), port, default=8080)
    host = "address to listen on (default: %(default)s, which only this machine can reach)"
    add_option(parser, "--host", "HOST", non_empty, host, default="127.0.0.1")
    public = "allow a --host that other machines can reach; they can all see the study without a password"
    add_flag(parser, "--public", public)
    add_study_options(parser)


def prepare(options: argparse.Namespace) -> tuple[Address, LoadedStudy]:
    """Check the address and load the study; the port is not opened yet."""
    problems = collector(options)
    with problems.collect():
        address = _address(options)
    with problems.collect():
        study = load(options)
    problems.raise_all()
    return address, study


def run(options: argparse.Namespace, prepared: tuple[Address, LoadedStudy]) -> int:
    """Serve the study, read-only, until a signal stops the command."""
    from studies.dashboard.server import DashboardServer
    from studies.dashboard.view import dashboard_app, page_path

    address, (study, folder) = prepared
    with DashboardServer(address, options.port) as server:
        app = dashboard_app(study, folder, address, log=print_message, debug=options.debug)
        if options.public:
            print_message(f"warning: all machines that can reach {server.url} can see the study without a password")
        print_lines([f"{server.url}{page_path(study)} shows study {study.study_name}; press Ctrl-C to stop"])
        server.serve(app, debug=options.debug)
    return SUCCESS


def _address(options: argparse.Namespace) -> Address:
    """Return the address to listen on.

    Raises:
        ConfigurationError: ``--host`` is invalid, or ``--public`` is missing or unnecessary for it.
    """
    from search_spaces import ConfigurationError
    from studies.dashboard.server import Address

    host = options.host
    address = Address.of(host)
    if address.is_private and options.public:
        raise ConfigurationError(
            f"--public: found with --host {host}, which only this machine can reach; "
            "leave out --public, or use an address that other machines can reach, for example --host 0.0.0.0"
        )
    if not address.is_private and not options.public:
        raise ConfigurationError(
            f"--host: found {host!r}, which other machines can reach without a password; "
            "leave out --host, or add --public to let them see the study"
        )
    return address


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
