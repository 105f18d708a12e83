"""The entry point of ``khmer-tuner`` and ``python -m tuner``."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # SIGINT prints a traceback while `signal` is imported
import atexit
import gc
import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command that the arguments name.

    Args:
        argv: The arguments after the program's name; None for the arguments of this process. With None, SIGINT ends the
            process silently unless a command handles it, and the null device replaces closed standard streams.

    Returns:
        The exit code.
    """
    if argv is None:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        atexit.register(gc.freeze)  # otherwise Python visits all objects of PyTorch before it exits, which takes 0.7 s
        argv = sys.argv[1:]
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if getattr(sys, name) is None:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, `number`, before a database file can
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))
    # Imported late: these imports take most of a short command's time.
    from tuner.cli.commands import COMMAND_GROUPS
    from tuner.cli.main import run_command_line

    return run_command_line(argv, COMMAND_GROUPS)


if __name__ == "__main__":
    sys.exit(main())
