"""``khmer-tuner``: runs the command of a command line and returns its exit code.

Exit codes: 0 done; 1 an experiment failed, no new trial succeeded or an error left a trial pending; 2 bad input,
found before anything was created; 130, 143 or 129 stopped by SIGINT, SIGTERM or SIGHUP; the same command continues.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Any

from tuner.cli.errors import BROKEN_PIPE, INVALID_INPUT, SUCCESS, collector, report_error, resume_hint, tell
from tuner.cli.options import Command
from tuner.cli.output import print_text
from tuner.cli.parser import parse
from tuner.signals import StopRequested, stop_on_signals


def run_command_line(argv: Sequence[str], commands: Sequence[Command[Any]]) -> int:
    """Run the command that a command line names.

    Args:
        argv: The arguments after the program's name.
        commands: All commands.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Khmer on a terminal without Unicode, and undecodable file names, are shown escaped.
            stream.reconfigure(errors="backslashreplace")
    options: argparse.Namespace | None = None
    try:
        with stop_on_signals():
            command, options = parse(argv, commands)
            prepared = _prepared(command, options)
            code = command.run(options, prepared)
            print_text("")  # here, where a closed pipe is still an error that can be handled
            return code
    except StopRequested as stop:
        tell(resume_hint(options))
        return stop.exit_code
    except SystemExit as end:  # argparse has printed help
        return SUCCESS if end.code in (None, 0) else INVALID_INPUT
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        return report_error(error, options)


def _prepared(command: Command[Any], options: argparse.Namespace) -> Any:
    """Return what a command prepares; problems of option values and of its input are raised together."""
    problems = collector(options)
    problems.add(options.problems)
    with problems.collect():
        prepared = command.prepare(options)
    problems.raise_all()
    return prepared
