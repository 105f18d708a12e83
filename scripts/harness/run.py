"""What the command line of every harness does: its common options, a work folder, exit codes, Ctrl-C."""

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
exit code: 0 no problem was found, 1 one was (the folders of its studies are kept), 2 the harness could not do its work,
130 it was stopped
"""

_ENOUGH_BYTES = 200 * 2**20
_stop_requested = False


class HarnessError(Exception):
    """The harness itself does not work, so it can say nothing about the program."""


def option_parser(description: str | None, examples: str = "") -> argparse.ArgumentParser:
    """Return a parser with the options that all harnesses share, ``--seed`` and ``--folder``."""
    parser = argparse.ArgumentParser(
        description=description, epilog=examples + _EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of all randomness (default: %(default)s)")
    parser.add_argument("--folder", metavar="DIR", help="an empty folder to work in, kept (default: a temporary one)")
    return parser


def run_harness(
    options: argparse.Namespace,
    prefix: str,
    work: Callable[[argparse.Namespace, Path], int],
    *,
    prepare: Callable[[], object] = lambda: None,
    in_memory: bool = True,
) -> int:
    """Do a harness's work in a folder; return the exit code.

    The temporary folder is removed unless the harness found a problem. Ctrl-C and SIGTERM also end what the harness has
    started: processes, a server.

    Args:
        options: From `option_parser`.
        prefix: Beginning of the temporary folder's name.
        work: Works in the folder and returns `EQUAL`, `DIFFERENT` or `STOPPED`.
        prepare: Called before the folder is created.
        in_memory: Whether the temporary folder is in memory, where nothing waits for a disk; SIGKILL leaves the same
            files behind there.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    folder = None
    try:
        prepare()
        folder = _work_folder(options.folder, prefix, in_memory=in_memory)
        print(f"seed {options.seed}, in {folder}", flush=True)
        begun_s = time.monotonic()
        code = work(options, folder)
        print(f"{time.monotonic() - begun_s:.0f} s in all")
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
    """Raise the interrupt again: Python ignores an exception that is raised in a destructor or in a hook of a fork."""
    if _stop_requested:
        raise KeyboardInterrupt


# `tuner.signals` needs a thread for this, and a process that forks must have only one: see `harness.forks.prepare`.
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
        raise HarnessError(f"--folder: {requested} is not empty; choose another one")
    return folder
