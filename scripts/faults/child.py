"""The process in which the disk fails: a command of the program, and nothing else."""

from __future__ import annotations

import errno
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.replacement import watch

from faults.calls import CallLog, Moment
from faults.preload import start_faults


class Fault(StrEnum):
    """What happens to a call."""

    FULL = "disk full"
    ERROR = "I/O error"
    KILL = "kill"

    @property
    def error(self) -> int:
        """The error's number; 0 if the process is killed."""
        return {Fault.FULL: errno.ENOSPC, Fault.ERROR: errno.EIO, Fault.KILL: 0}[self]


_MOMENTS = {"tuner.training.loop._keep": Moment.CHECKPOINT, "optuna.study.Study.tell": Moment.TELL}


def run_command(command: list[str], call: int, fault: Fault) -> int:
    """Run a command in the working directory, and let one of its calls fail.

    Args:
        command: The words after ``khmer-tuner``.
        call: Number of the call; 0 for none.
        fault: What happens to it; a full disk stays full, other errors occur once.

    Returns:
        The command's exit code.
    """
    from tuner.__main__ import main

    log = CallLog(Path())
    for target, moment in _MOMENTS.items():
        watch(target, before=_starting(log, moment), after=lambda *arguments, **named: log.ended())
    start_faults(Path.cwd(), log.descriptor, call, fault.error, lasts=fault is Fault.FULL)
    return main(command)


def _starting(log: CallLog, moment: Moment) -> Any:
    return lambda *arguments, **named: log.started(moment)
