"""``khmer-tuner`` and ``python -m tuner``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tuner.cli.commands import COMMANDS
from tuner.cli.main import run_command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that a command line names.

    Args:
        argv: The arguments after the program's name; those of this process if None.

    Returns:
        The exit code.
    """
    return run_command_line(sys.argv[1:] if argv is None else argv, COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
