"""The process in which the disk fails: a command of the program under `faults.c`, which is compiled and preloaded."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.replacement import watch
from harness.run import HarnessError

from faults.calls import CallLog, Fault, Moment

_SOURCE = Path(__file__).with_name("faults.c")
_VARIABLE = "LD_PRELOAD"
_ERRORS = {Fault.FULL: errno.ENOSPC, Fault.ERROR: errno.EIO, Fault.KILL: 0}
_MOMENTS = {"tuner.training.loop._complete_epoch": Moment.CHECKPOINT, "optuna.study.Study.tell": Moment.TELL}


def restart_preloaded() -> None:
    """Start this command again as a process whose disk can be made to fail, unless it is one.

    Raises:
        HarnessError: This machine cannot do it.
    """
    if hasattr(ctypes.CDLL(None), "faults_begin"):
        # It is loaded, and no other program may load it.
        shutil.rmtree(Path(os.environ.pop(_VARIABLE)).parent)
        return
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise HarnessError("this needs Linux and a C compiler, cc")
    library = Path(tempfile.mkdtemp(prefix="faults_")) / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {_VARIABLE: str(library)})


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
    start = ctypes.CDLL(None).faults_begin
    start(os.fsencode(Path.cwd()), log.descriptor, ctypes.c_long(call), _ERRORS[fault], int(fault is Fault.FULL))
    return main(command)


def _starting(log: CallLog, moment: Moment) -> Any:
    return lambda *arguments, **named: log.started(moment)
