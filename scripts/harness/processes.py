"""Starting processes, killing them at a moment, and asking a process that is thrown away afterwards.

The parent imports everything once and computes nothing, so that what it forks begins like a new process, three seconds
of imports later. It never opens a study: open databases and locks do not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from harness.fixture_study import STORAGE_VARIABLE

Result = TypeVar("Result")

# What a command imports when it comes to it: its training, a new database, the first curve.
_IMPORTED = (
    "tuner.hyperparameter_tuner",
    "tuner.cli.display_factory",
    "alembic.command",
    "torch.utils.tensorboard",
)
LOG_NAME = "output.txt"
LONGEST_LIFE_S = 300.0
_ENOUGH_BYTES = 200 * 2**20
_POLL_S = 0.002
_LAST_LINES = 12
_COULD_NOT_START = 70

_stop_requested = False

# Exit codes of a harness: nothing differs, something does, it could not do its work, it was stopped.
EQUAL, DIFFERENT, UNKNOWN, STOPPED = 0, 1, 2, 130


class HarnessError(Exception):
    """The harness itself does not do what it should; nothing is known of the program then."""


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        started_s: When it was started, on the clock of its diary.
        seconds: How long it lived.
        code: Its exit code; None if it was killed.
        hung: Whether it was killed because it did not come to an end.
    """

    started_s: float
    seconds: float
    code: int | None
    hung: bool = False


def run_harness(
    asked: str | None, prefix: str, seed: int, work: Callable[[Path], int], begin: Callable[[], object] = lambda: None
) -> int:
    """Do a harness's work in a folder; return the exit code.

    The folder goes when nothing differs or the harness is stopped, unless it was asked for. Ctrl-C and SIGTERM end what
    it has begun, too: processes, a server.

    Args:
        asked: The folder that was asked for; None for a temporary one.
        prefix: What the temporary one's name begins with.
        seed: Of all chance; it is told.
        work: Works in the folder and returns `EQUAL`, `DIFFERENT` or `STOPPED`.
        begin: What comes before there is a folder.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    folder = None
    try:
        begin()
        folder = work_folder(asked, prefix)
        print(f"seed {seed}, in {folder}", flush=True)
        code = work(folder)
    except HarnessError as error:
        print(f"error: {error}")
        return UNKNOWN
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = STOPPED
    if code in (EQUAL, STOPPED) and asked is None and folder is not None:
        shutil.rmtree(folder)
    return code


# `tuner.signals` has a thread for this, and a process that is forked from must have one alone: see `prepare`.
def _stop(signum: int, frame: FrameType | None) -> None:
    global _stop_requested
    _stop_requested = True
    raise KeyboardInterrupt


def _raise_if_stop_asked() -> None:
    """Raise the interrupt once more: Python swallows what happens to be raised in a destructor or a hook of a fork."""
    if _stop_requested:
        raise KeyboardInterrupt


def work_folder(asked: str | None, prefix: str) -> Path:
    """Return the folder that was asked for, or a temporary one, absolute.

    Raises:
        HarnessError: It is not empty.
    """
    folder = Path(asked or tempfile.mkdtemp(prefix=prefix, dir=_memory())).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise HarnessError(f"--folder: {asked} is not empty; choose another one")
    return folder


def _memory() -> Path | None:
    """Return a folder in memory, if there is one: what is killed leaves the same there, and no disk makes it wait."""
    folder = Path("/dev/shm")
    return folder if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _ENOUGH_BYTES else None


def prepare(*drivers: str) -> None:
    """Import what the processes need, with one thread each: threads do not survive a fork.

    Args:
        drivers: Names of modules that their database needs besides.

    Raises:
        HarnessError: One is missing, or there are more threads all the same.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ.pop(STORAGE_VARIABLE, None)
    try:
        for module in (*_IMPORTED, *drivers):
            importlib.import_module(module)
    except ImportError as error:
        raise HarnessError(f"{error}; `pip install -e '.[dev]'` brings what is missing") from error
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.exists() else 1
    if threads > 1:
        raise HarnessError(f"the imports left {threads} threads, which a fork would lose")


def start(act: Callable[[], int], folder: Path) -> int:
    """Start a process in a folder; its output goes to a file there.

    Args:
        act: What it does; returns its exit code.
        folder: Its working directory.

    Returns:
        Its process id.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = _COULD_NOT_START
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _enter(folder)
        _forget_chance()
        code = act()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, started_s: float, is_time_to_kill: Callable[[float], bool] = lambda now_s: False) -> Ending:
    """Wait for a process, and kill it when it is time.

    Args:
        pid: Its process id.
        started_s: When it was started.
        is_time_to_kill: Asked again and again, with the time.
    """
    try:
        return _wait(pid, started_s, is_time_to_kill)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def in_fork(function: Callable[..., Result], *arguments: object) -> Result:
    """Return what a function returns in a process of its own.

    Raises:
        HarnessError: It raised something; the text is the traceback.
    """
    return in_forks(function, [arguments])[0]


def in_forks(function: Callable[..., Result], calls: Sequence[Sequence[object]]) -> list[Result]:
    """Return what a function returns for each of some arguments, in processes side by side.

    Raises:
        HarnessError: It raised something; the text is the traceback.
    """
    sys.stdout.flush()
    asked = [_ask(function, arguments) for arguments in calls]
    return [_answered(pid, reading) for pid, reading in asked]


def last_words(folder: Path) -> str:
    """Return the end of what the processes in a folder wrote."""
    lines = (folder / LOG_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])


def has_unexpected_error(folder: Path) -> bool:
    """Return whether a process in a folder told of an error that the program does not know."""
    text = (folder / LOG_NAME).read_text(encoding="utf-8", errors="replace")
    return "Traceback" in text or "error: unexpected" in text


def _wait(pid: int, started_s: float, is_time_to_kill: Callable[[float], bool]) -> Ending:
    hung = False
    while True:
        _raise_if_stop_asked()
        ended, status = os.waitpid(pid, os.WNOHANG)
        now_s = time.monotonic()
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return Ending(started_s, now_s - started_s, None if code == -signal.SIGKILL else code, hung)
        hung = now_s - started_s > LONGEST_LIFE_S
        if hung or is_time_to_kill(now_s):
            os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _ask(function: Callable[..., object], arguments: Sequence[object]) -> tuple[int, int]:
    """Begin a process; return its id, and where its answer can be read."""
    _raise_if_stop_asked()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(writing, function, *arguments)
    os.close(writing)
    return pid, reading


def _answered(pid: int, reading: int) -> Any:
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer:
        raise HarnessError("a process that was only to look died")
    result, error = pickle.loads(answer)
    if error:
        raise HarnessError(error)
    return result


def _answer(writing: int, function: Callable[..., object], *arguments: object) -> None:
    try:
        answer: tuple[object, str] = (function(*arguments), "")
    except BaseException:
        answer = (None, traceback.format_exc())
    try:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def _enter(folder: Path) -> None:
    os.chdir(folder)
    log = os.open(LOG_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    silence = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, silence), (1, log), (2, log)):
        os.dup2(source, target)


def _forget_chance() -> None:
    """Seed the global random generators by chance, as they are in every new process."""
    import random

    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    torch.seed()
