"""Show a study in a browser, also while it runs.

Examples:
  khmer-tuner dashboard
  khmer-tuner dashboard --port 0
  khmer-tuner dashboard --port 0 --host 0.0.0.0 --public

It only shows: what else optuna-dashboard offers, such as deleting, is refused.
From another machine, `ssh -L 8080:127.0.0.1:8080 HOST` is safer than --public.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, collector, tell
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import Command, add_flag, add_option, add_study_options, filled, whole_number
from tuner.cli.output import print_lines

if TYPE_CHECKING:
    from studies.dashboard.server import Address

_LARGEST_PORT = 65535


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_option(
        parser, "--port", "N", whole_number(0, _LARGEST_PORT), "the port; 0 takes any that is free", default=8080
    )
    host = "the address of this machine that it listens on (default: %(default)s, which only this machine reaches)"
    add_option(parser, "--host", "H", filled, host, default="127.0.0.1")
    add_flag(
        parser, "--public", "allow a --host that other machines reach: there is no password, so they all see the study"
    )
    add_study_options(parser)


def prepare(options: argparse.Namespace) -> tuple[Address, LoadedStudy]:
    """Look up the address and load the study; nothing listens yet."""
    problems = collector(options)
    with problems.collect():
        address = _address(options)
    with problems.collect():
        study = load(options)
    problems.raise_all()
    return address, study


def run(options: argparse.Namespace, prepared: tuple[Address, LoadedStudy]) -> int:
    """Serve the study until a signal ends the program; it is only read."""
    from studies.dashboard.server import DashboardServer
    from studies.dashboard.view import dashboard_app, page_path

    address, (study, folder) = prepared
    with DashboardServer(address, options.port) as server:
        app = dashboard_app(study, folder, address, tell=tell, debug=options.debug)
        if options.public:
            tell(f"warning: there is no password; every machine that reaches {server.url} can see the study")
        print_lines([f"{server.url}{page_path(study)} shows the study {study.study_name}; Ctrl-C ends it"])
        server.serve(app, debug=options.debug)
    return SUCCESS


def _address(options: argparse.Namespace) -> Address:
    """Return where to listen.

    Raises:
        ConfigurationError: It is no address, or other machines reach it without --public, or --public is of no use.
    """
    from search_spaces import ConfigurationError
    from studies.dashboard.server import Address

    host = options.host
    address = Address.of(host)
    if address.is_private and options.public:
        raise ConfigurationError(
            f"--public: found with --host {host}, which only this machine reaches; "
            "leave out --public, or name an address that others reach, for example --host 0.0.0.0"
        )
    if not address.is_private and not options.public:
        raise ConfigurationError(
            f"--host: found {host!r}; other machines reach it and there is no password; "
            "leave it out, or add --public if they may see the study"
        )
    return address


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
