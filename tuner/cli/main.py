"""Execution of a ``khmer-tuner`` command line.

Exit codes: 0 success; 1 an unexpected error, a preset failed, no new trial succeeded, or an error left a trial pending;
2 an error that the user can fix, such as invalid input; 130, 143 or 129 stopped by SIGINT, SIGTERM or SIGHUP.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.cli.errors import BROKEN_PIPE, INVALID_INPUT, SUCCESS, collector, print_message, report_error, stop_message
from tuner.cli.options import Command
from tuner.cli.output import print_text
from tuner.cli.parser import parse
from tuner.signals import StopRequested, stop_on_signals


def run_command_line(argv: Sequence[str], groups: Mapping[str, Sequence[Command[Any]]]) -> int:
    """Parse a command line and run its command.

    Args:
        argv: The arguments after the program's name.
        groups: All commands, keyed by the heading under which ``--help`` lists them.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Escape Khmer on a terminal without Unicode, and undecodable file names.
            stream.reconfigure(errors="backslashreplace")
    options: argparse.Namespace | None = None
    try:
        with stop_on_signals():
            command, options = parse(argv, groups)
            prepared = _prepare(command, options)
            code = command.run(options, prepared)
            print_text("")  # flush here, where a closed pipe can still be handled
            return code
    except StopRequested as stop:
        print_message(stop_message(options))
        return stop.exit_code
    except SystemExit as error:  # argparse has printed the help
        return SUCCESS if error.code in (None, 0) else INVALID_INPUT
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        return report_error(error, options)


def _prepare(command: Command[Any], options: argparse.Namespace) -> Any:
    """Return what the command prepared; raise all problems of its options and other input together."""
    problems = collector(options)
    problems.add(options.problems)
    with problems.collect():
        prepared = command.prepare(options)
    problems.raise_all()
    return prepared
