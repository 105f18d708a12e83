"""Getting between a process and its disk: `faults.c`, compiled and preloaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.processes import HarnessError

_SOURCE = Path(__file__).with_name("faults.c")
_VARIABLE = "LD_PRELOAD"


def begin_again_preloaded() -> None:
    """Become a process whose disk can be made to fail, unless this is one: the same command, begun again.

    Raises:
        HarnessError: This machine cannot do it.
    """
    if hasattr(ctypes.CDLL(None), "faults_begin"):
        # It is in memory now, and no process of another program is to have it.
        shutil.rmtree(Path(os.environ.pop(_VARIABLE)).parent)
        return
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise HarnessError("this needs Linux and a C compiler, cc")
    library = Path(tempfile.mkdtemp(prefix="faults_")) / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {_VARIABLE: str(library)})


def begin_faults(folder: Path, notes: int, call: int, error: int, *, lasts: bool) -> None:
    """Count this process's calls that change something in a folder from now on, and let one of them fail.

    Args:
        folder: The folder, absolute.
        notes: Descriptor of a file that each call is noted down in.
        call: Number of the call that fails; 0 for none.
        error: The error's number; 0 to kill the process.
        lasts: Whether all later calls that take room fail as well.
    """
    ctypes.CDLL(None).faults_begin(os.fsencode(folder), notes, ctypes.c_long(call), error, int(lasts))
