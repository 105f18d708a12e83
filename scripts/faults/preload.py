"""Getting between a process and its disk: `faults.c`, compiled and preloaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.run import HarnessError

_SOURCE = Path(__file__).with_name("faults.c")
_VARIABLE = "LD_PRELOAD"


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


def start_faults(folder: Path, log: int, call: int, error: int, *, lasts: bool) -> None:
    """Count this process's calls that change something in a folder from now on, and let one of them fail.

    Args:
        folder: The folder, absolute.
        log: Descriptor of a file that each call is logged to.
        call: Number of the call that fails; 0 for none.
        error: The error's number; 0 to kill the process.
        lasts: Whether all later calls that take room fail as well.
    """
    ctypes.CDLL(None).faults_begin(os.fsencode(folder), log, ctypes.c_long(call), error, int(lasts))
