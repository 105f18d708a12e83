"""The process in which a file-system call fails: it runs ``khmer-tuner`` with the compiled `faults.c` preloaded."""

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

from faults.calls import CallLog, Fault, Operation

_SOURCE = Path(__file__).with_name("faults.c")
_VARIABLE = "LD_PRELOAD"
_ERRORS = {Fault.FULL: errno.ENOSPC, Fault.ERROR: errno.EIO, Fault.KILL: 0}
_OPERATIONS = {"tuner.training.loop._complete_epoch": Operation.CHECKPOINT, "optuna.study.Study.tell": Operation.TELL}


def restart_preloaded() -> None:
    """Compile `faults.c` and restart this harness with the library preloaded, unless the library is already loaded.

    Raises:
        HarnessError: The operating system is not Linux, or there is no C compiler.
    """
    if hasattr(ctypes.CDLL(None), "start_faults"):
        # This process has loaded the library; programs that it starts must not load the library.
        shutil.rmtree(Path(os.environ.pop(_VARIABLE)).parent)
        return
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise HarnessError(
            f"system {sys.platform}, C compiler {compiler}: expected Linux and a C compiler named cc to inject faults; "
            "install the compiler, or use Linux"
        )
    library = Path(tempfile.mkdtemp(prefix="faults_")) / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {_VARIABLE: str(library)})


def run_command(command: list[str], call: int, fault: Fault) -> int:
    """Run a ``khmer-tuner`` command in the working directory and make one of its file-system calls fail.

    Args:
        command: Arguments of ``khmer-tuner``.
        call: Number of the file-system call that fails, from 1; 0 if no call fails.
        fault: The way in which the call fails. A full disk stays full; an I/O error occurs once.

    Returns:
        The exit code of the command.
    """
    from tuner.__main__ import main

    log = CallLog(Path())
    for target, operation in _OPERATIONS.items():
        watch(target, before=_starting(log, operation), after=lambda *arguments, **named: log.ended())
    start = ctypes.CDLL(None).start_faults
    start(os.fsencode(Path.cwd()), log.descriptor, ctypes.c_long(call), _ERRORS[fault], int(fault is Fault.FULL))
    return main(command)


def _starting(log: CallLog, operation: Operation) -> Any:
    return lambda *arguments, **named: log.started(operation)
