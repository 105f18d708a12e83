"""``khmer-tuner``: from words to a command to an exit code.

Exit codes: 0 done; 1 an experiment failed or nothing succeeded; 2 bad input, found before anything was created;
130, 143 or 129 stopped by SIGINT, SIGTERM or SIGHUP, to be gone on with by the same command.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from tuner.cli import (
    best,
    confirm,
    dashboard,
    data,
    enqueue,
    evaluate,
    export,
    predict,
    report,
    resume,
    run,
    search,
    show,
    status,
    stop,
    validate,
    worker,
)
from tuner.cli.errors import (
    BAD_INPUT,
    DONE,
    NOBODY_LISTENS,
    report_error,
    report_problems,
    resume_hint,
    silence_stdout,
    tell,
)
from tuner.cli.parser import parse
from tuner.signals import StopRequested, stop_on_signals

COMMANDS = (
    run.COMMAND,
    search.COMMAND,
    resume.COMMAND,
    worker.COMMAND,
    enqueue.COMMAND,
    stop.COMMAND,
    data.COMMAND,
    validate.COMMAND,
    status.COMMAND,
    show.COMMAND,
    export.COMMAND,
    report.COMMAND,
    dashboard.COMMAND,
    best.COMMAND,
    confirm.COMMAND,
    predict.COMMAND,
    evaluate.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line says.

    Args:
        argv: The words after the program's name; those of this process if None.

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
            command, options = parse(sys.argv[1:] if argv is None else argv, COMMANDS)
            if problems := options.problems + command.problems(options):
                return report_problems(problems, options)
            code = command.run(options)
            sys.stdout.flush()  # here, where a closed pipe is still an error and not a complaint at exit
            return code
    except StopRequested as stop:
        tell(resume_hint(options))
        return stop.exit_code
    except SystemExit as end:  # argparse has printed help
        return DONE if end.code in (None, 0) else BAD_INPUT
    except BrokenPipeError:
        silence_stdout()
        return NOBODY_LISTENS
    except Exception as error:
        return report_error(error, options)


if __name__ == "__main__":
    sys.exit(main())
