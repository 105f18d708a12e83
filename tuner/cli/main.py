"""``khmer-tuner``: from words to a command to an exit code.

Exit codes: 0 done; 1 an experiment failed or nothing succeeded; 2 bad input, found before anything was created;
130, 143 or 129 stopped by SIGINT, SIGTERM or SIGHUP, to be gone on with by the same command.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from tuner.cli.errors import (
    BROKEN_PIPE,
    INVALID_INPUT,
    SUCCESS,
    report_error,
    report_problems,
    resume_hint,
    silence_stdout,
    tell,
)
from tuner.cli.options import Command
from tuner.cli.parser import parse
from tuner.signals import StopRequested, stop_on_signals


def run_command_line(argv: Sequence[str], commands: Sequence[Command]) -> int:
    """Run the command that a command line names.

    Args:
        argv: The arguments after the program's name.
        commands: All commands.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Khmer on a terminal that has no Unicode, and file names that are none: shown escaped.
            stream.reconfigure(errors="backslashreplace")
    options: argparse.Namespace | None = None
    try:
        with stop_on_signals():
            command, options = parse(argv, commands)
            if problems := options.problems + command.problems(options):
                return report_problems(problems, options)
            code = command.run(options)
            sys.stdout.flush()  # here, where a closed pipe is still an error and not a complaint at exit
            return code
    except StopRequested as stop:
        tell(resume_hint(options))
        return stop.exit_code
    except SystemExit as end:  # argparse has printed help
        return SUCCESS if end.code in (None, 0) else INVALID_INPUT
    except BrokenPipeError:
        silence_stdout()
        return BROKEN_PIPE
    except Exception as error:
        return report_error(error, options)
