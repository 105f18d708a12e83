"""The command line of every harness: common options, work folder, exit codes, Ctrl-C."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

EQUAL, DIFFERENT, UNKNOWN, STOPPED = 0, 1, 2, 130
_EXIT_CODES = """
exit code: 0 no problems found, 1 problems found (the folders of the affected studies are kept), 2 the harness itself
failed, 130 stopped
"""

_ENOUGH_BYTES = 200 * 2**20
_stop_requested = False


class HarnessError(Exception):
    """Failure of the harness itself, not of the program that the harness checks."""


def option_parser(description: str | None, examples: str = "") -> argparse.ArgumentParser:
    """Create a parser with the common options ``--seed`` and ``--folder``."""
    parser = argparse.ArgumentParser(
        description=description, epilog=examples + _EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="random seed (default: %(default)s)")
    parser.add_argument("--folder", metavar="DIR", help="empty or new work folder, which is kept (default: temporary)")
    return parser


def run_harness(
    options: argparse.Namespace,
    prefix: str,
    work: Callable[[argparse.Namespace, Path], int],
    *,
    prepare: Callable[[], object] = lambda: None,
    in_memory: bool = True,
) -> int:
    """Run a harness in a work folder; return the exit code.

    A temporary folder is removed unless the harness found a problem. Ctrl-C and SIGTERM also stop the processes and
    the server that the harness has started.

    Args:
        options: Parsed options, including those of `option_parser`.
        prefix: Prefix of the temporary folder's name.
        work: Called with the options and the work folder; returns `EQUAL`, `DIFFERENT` or `STOPPED`.
        prepare: Called before the work folder is created.
        in_memory: Whether to create the temporary folder in memory if possible, which is faster than a disk. A process
            that is killed by SIGKILL leaves the same files in memory as on a disk.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    folder = None
    try:
        prepare()
        folder = _work_folder(options.folder, prefix, in_memory=in_memory)
        print(f"seed {options.seed}, in {folder}", flush=True)
        started_s = time.monotonic()
        code = work(options, folder)
        print(f"duration: {time.monotonic() - started_s:.0f} s")
    except HarnessError as error:
        print(f"error: {error}")
        code = UNKNOWN
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = STOPPED
    if code in (EQUAL, STOPPED, UNKNOWN) and options.folder is None and folder is not None:
        shutil.rmtree(folder)
    return code


def raise_if_stop_requested() -> None:
    """Raise KeyboardInterrupt if Ctrl-C or SIGTERM has requested a stop.

    The exception that the signal handler raised may be lost: Python ignores exceptions in destructors and fork hooks.
    """
    if _stop_requested:
        raise KeyboardInterrupt


# `tuner.signals` would start a thread, but a process that forks must have a single one: see `harness.forks.prepare`.
def _stop(signum: int, frame: FrameType | None) -> None:
    global _stop_requested
    _stop_requested = True
    raise KeyboardInterrupt


def _work_folder(requested: str | None, prefix: str, *, in_memory: bool) -> Path:
    memory = Path("/dev/shm")
    has_memory = in_memory and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH_BYTES
    folder = Path(requested or tempfile.mkdtemp(prefix=prefix, dir=memory if has_memory else None)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise HarnessError(f"--folder: {requested} contains files; expected an empty or new folder; choose another one")
    return folder
