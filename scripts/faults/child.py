"""The process with the failing call: a command of the program with `faults.c` compiled and preloaded."""

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
    """Restart this command with the compiled `faults.c` preloaded, unless it is preloaded already.

    Raises:
        HarnessError: The machine has no Linux or no C compiler.
    """
    if hasattr(ctypes.CDLL(None), "start_faults"):
        # The library is loaded; other programs must not load it.
        shutil.rmtree(Path(os.environ.pop(_VARIABLE)).parent)
        return
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise HarnessError("faults can only be injected on Linux with a C compiler; install one that is called cc")
    library = Path(tempfile.mkdtemp(prefix="faults_")) / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {_VARIABLE: str(library)})


def run_command(command: list[str], call: int, fault: Fault) -> int:
    """Run a command in the working directory and make one of its calls fail.

    Args:
        command: The words after ``khmer-tuner``.
        call: Number of the call; 0 for none.
        fault: The way in which it fails; a full disk stays full, other errors occur once.

    Returns:
        The command's exit code.
    """
    from tuner.__main__ import main

    log = CallLog(Path())
    for target, moment in _MOMENTS.items():
        watch(target, before=_starting(log, moment), after=lambda *arguments, **named: log.ended())
    start = ctypes.CDLL(None).start_faults
    start(os.fsencode(Path.cwd()), log.descriptor, ctypes.c_long(call), _ERRORS[fault], int(fault is Fault.FULL))
    return main(command)


def _starting(log: CallLog, moment: Moment) -> Any:
    return lambda *arguments, **named: log.started(moment)
