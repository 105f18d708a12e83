"""Forked processes: some run a command until they exit or are killed, others return the result of one function.

The parent process imports all modules once, which saves three seconds per child process. The parent computes nothing
and never opens a study, because threads, open databases and locks do not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.fixture_study import STORAGE_VARIABLE
from harness.processes import LOG_NAME, PROCESS_TIMEOUT_S
from harness.run import HarnessError, raise_if_stop_requested

Result = TypeVar("Result")

# Modules that a command imports only when it trains, creates a database or plots the first curve.
_IMPORTED = (
    "tuner.hyperparameter_tuner",
    "tuner.cli.display_factory",
    "optuna_dashboard.artifact",
    "alembic.command",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "torch.utils.tensorboard",
)
_POLL_S = 0.002
_COULD_NOT_START = 70


@dataclass(frozen=True)
class ForkedProcess:
    """A forked process that runs a command.

    Attributes:
        pid: Process id.
        started_s: Start time on the monotonic clock, as in the event log.
        is_time_to_kill: Called repeatedly with the time on the monotonic clock; returns whether to kill the process.
    """

    pid: int
    started_s: float
    is_time_to_kill: Callable[[float], bool]


@dataclass(frozen=True)
class Ending:
    """Exit code and duration of a process.

    Attributes:
        started_s: Start time on the monotonic clock, as in the event log.
        seconds: Duration of the process in seconds.
        code: Exit code; None if the process was killed by SIGKILL.
        hung: Whether the harness killed the process because no process exited within `PROCESS_TIMEOUT_S`.
    """

    started_s: float
    seconds: float
    code: int | None
    hung: bool = False


def prepare(*modules: str) -> None:
    """Import the modules that the child processes need, and limit the numeric libraries to one thread.

    Args:
        modules: Names of further modules to import.

    Raises:
        HarnessError: A module is missing, or an import started a thread.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    os.environ.pop(STORAGE_VARIABLE, None)
    try:
        for module in (*_IMPORTED, *modules):
            importlib.import_module(module)
    except ImportError as error:
        raise HarnessError(f"{error}; run `pip install -e '.[dev]'` to install the missing module") from error
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.exists() else 1
    if threads > 1:
        raise HarnessError(
            f"found {threads} threads after the imports; expected 1, because threads do not survive a fork; remove the "
            "import that starts a thread"
        )


def start(
    act: Callable[[], int], folder: Path, is_time_to_kill: Callable[[float], bool] = lambda now_s: False
) -> ForkedProcess:
    """Fork a process that calls a function.

    Args:
        act: Function that the process calls; returns the exit code of the process.
        folder: Working directory of the process; the output of the process is logged there, too.
        is_time_to_kill: See `ForkedProcess`.
    """
    sys.stdout.flush()
    started_s = time.monotonic()
    pid = os.fork()
    if pid:
        return ForkedProcess(pid, started_s, is_time_to_kill)
    code = _COULD_NOT_START
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _redirect_output_to(folder)
        _reseed()
        code = act()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_any(processes: Collection[ForkedProcess]) -> tuple[ForkedProcess, Ending]:
    """Wait until one of several processes has exited; kill each one whose `is_time_to_kill` returns True.

    A process may be idle while others train, so all are killed as hung only if none exits within `PROCESS_TIMEOUT_S`.
    """
    since_s, hung = time.monotonic(), False
    while True:
        raise_if_stop_requested()
        for process in processes:
            ended, status = os.waitpid(process.pid, os.WNOHANG)
            now_s = time.monotonic()
            if ended:
                code = os.waitstatus_to_exitcode(status)
                seconds = now_s - process.started_s
                return process, Ending(process.started_s, seconds, None if code == -signal.SIGKILL else code, hung)
            if hung or process.is_time_to_kill(now_s):
                os.kill(process.pid, signal.SIGKILL)
        hung = time.monotonic() - since_s > PROCESS_TIMEOUT_S
        time.sleep(_POLL_S)


def kill(processes: Iterable[ForkedProcess]) -> None:
    """Kill processes that `wait_for_any` has not returned."""
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)


def run(act: Callable[[], int], folder: Path, is_time_to_kill: Callable[[float], bool] = lambda now_s: False) -> Ending:
    """Fork a process as `start` does, and wait until it has exited."""
    process = start(act, folder, is_time_to_kill)
    try:
        return wait_for_any([process])[1]
    except BaseException:
        kill([process])
        raise


def run_logged(act: Callable[[], int], folder: Path, timeout_s: float = PROCESS_TIMEOUT_S) -> tuple[Ending, str]:
    """Call a function in a forked child process with this working directory; return how it ended, and its output.

    The child process is killed after `timeout_s` seconds.
    """
    log = folder / LOG_NAME
    before = log.stat().st_size if log.exists() else 0
    started_s = time.monotonic()
    ending = run(act, folder, lambda now_s: now_s - started_s > timeout_s)
    return ending, log.read_bytes()[before:].decode("utf-8", "replace")


def in_fork(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a forked child process; return its result.

    Raises:
        HarnessError: The function raised an exception; the message is the traceback.
    """
    return in_forks(function, [arguments])[0]


def in_forks(function: Callable[..., Result], calls: Sequence[Sequence[object]]) -> list[Result]:
    """Call a function in parallel child processes, once per argument list in `calls`; return the results in that order.

    Raises:
        HarnessError: The function raised an exception; the message is the traceback.
    """
    sys.stdout.flush()
    started = [_start_call(function, arguments) for arguments in calls]
    return [_result_of(pid, reading) for pid, reading in started]


def _start_call(function: Callable[..., object], arguments: Sequence[object]) -> tuple[int, int]:
    """Fork a process that calls a function; return the process id and a descriptor from which to read the result."""
    raise_if_stop_requested()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _send_result(writing, function, *arguments)
    os.close(writing)
    return pid, reading


def _result_of(pid: int, reading: int) -> Any:
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer:
        raise HarnessError(
            "a forked child process exited without a result; check the system log for an out-of-memory (OOM) kill"
        )
    result, error = pickle.loads(answer)
    if error:
        raise HarnessError(error)
    return result


def _send_result(writing: int, function: Callable[..., object], *arguments: object) -> None:
    try:
        answer: tuple[object, str] = (function(*arguments), "")
    except BaseException:
        answer = (None, traceback.format_exc())
    try:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
    finally:
        os._exit(0)


def _redirect_output_to(folder: Path) -> None:
    os.chdir(folder)
    log = os.open(LOG_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    silence = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, silence), (1, log), (2, log)):
        os.dup2(source, target)


def _reseed() -> None:
    """Seed the global random number generators from the system, as every new process does."""
    import random

    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    torch.seed()
