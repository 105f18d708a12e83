"""Processes that are forked: some are killed, others answer a question and exit.

The parent imports everything once and computes nothing, so that a fork starts like a new process, without three seconds
of imports. The parent never opens a study: open databases and locks do not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.fixture_study import STORAGE_VARIABLE
from harness.processes import LOG_NAME, LONGEST_LIFE_S
from harness.run import HarnessError, raise_if_stop_requested

Result = TypeVar("Result")

# What a command imports only when it needs it: its training, a new database, the first curve.
_IMPORTED = (
    "tuner.hyperparameter_tuner",
    "tuner.cli.display_factory",
    "alembic.command",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "torch.utils.tensorboard",
)
_POLL_S = 0.002
_COULD_NOT_START = 70


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        started_s: When it was started, on the clock of the event log.
        seconds: How long it ran.
        code: Its exit code; None if it was killed.
        hung: Whether it was killed because it did not exit.
    """

    started_s: float
    seconds: float
    code: int | None
    hung: bool = False


def prepare(*modules: str) -> None:
    """Import what the forks need, with one thread each: threads do not survive a fork.

    Args:
        modules: Names of further modules to import.

    Raises:
        HarnessError: One is missing, or an import started a thread.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ.pop(STORAGE_VARIABLE, None)
    try:
        for module in (*_IMPORTED, *modules):
            importlib.import_module(module)
    except ImportError as error:
        raise HarnessError(f"{error}; `pip install -e '.[dev]'` installs what is missing") from error
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.exists() else 1
    if threads > 1:
        raise HarnessError(f"the imports left {threads} threads, which a fork would lose")


def start(act: Callable[[], int], folder: Path) -> int:
    """Fork a process that works in a folder and logs there; return its process id.

    Args:
        act: What the process does; returns its exit code.
        folder: Its working directory.
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
        _reseed()
        code = act()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, started_s: float, is_time_to_kill: Callable[[float], bool] = lambda now_s: False) -> Ending:
    """Wait until a process exits, and kill it when it is time.

    Args:
        pid: Its process id.
        started_s: When it was started.
        is_time_to_kill: Called again and again, with the time.
    """
    try:
        return _wait(pid, started_s, is_time_to_kill)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def run_logged(act: Callable[[], int], folder: Path, longest_s: float = LONGEST_LIFE_S) -> tuple[Ending, str]:
    """Run a function in a process in a folder, killed after `longest_s` seconds; return its ending and output."""
    log = folder / LOG_NAME
    before = log.stat().st_size if log.exists() else 0
    started_s = time.monotonic()
    ending = wait(start(act, folder), started_s, lambda now_s: now_s - started_s > longest_s)
    return ending, log.read_bytes()[before:].decode("utf-8", "replace")


def in_fork(function: Callable[..., Result], *arguments: object) -> Result:
    """Return what a function returns in a process of its own.

    Raises:
        HarnessError: It raised an exception; the text is the traceback.
    """
    return in_forks(function, [arguments])[0]


def in_forks(function: Callable[..., Result], calls: Sequence[Sequence[object]]) -> list[Result]:
    """Return what a function returns for each of several argument lists, in parallel processes.

    Raises:
        HarnessError: It raised an exception; the text is the traceback.
    """
    sys.stdout.flush()
    asked = [_ask(function, arguments) for arguments in calls]
    return [_answered(pid, reading) for pid, reading in asked]


def _wait(pid: int, started_s: float, is_time_to_kill: Callable[[float], bool]) -> Ending:
    hung = False
    while True:
        raise_if_stop_requested()
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
    """Start a process; return its id, and the descriptor of the pipe that its answer comes through."""
    raise_if_stop_requested()
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
        raise HarnessError("a process died before it answered")
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


def _reseed() -> None:
    """Seed the global random generators from the system, as in every new process."""
    import random

    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    torch.seed()
