"""New Python processes with the import path of this process: their start, end, duration and output."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.run import HarnessError

LOG_NAME = "output.txt"
PROCESS_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 20.0
_SHOWN_LINES = 15
_SHOWN_ARGUMENTS = 3


def command(*arguments: str) -> list[str]:
    """Return the arguments of ``python`` that run ``khmer-tuner ARGUMENTS``."""
    return ["-m", "tuner", *arguments]


def python(arguments: Sequence[str]) -> list[str]:
    """Return the command line of ``python ARGUMENTS``, with the working directory excluded from imports."""
    return [sys.executable, "-P", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a new interpreter: the variables and import path of this process, with `changes`."""
    paths = [str(Path(__file__).parents[1]), *(folder or os.getcwd() for folder in sys.path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | changes


def start_logged(arguments: Sequence[str], log: Path, **changes: str) -> subprocess.Popen[bytes]:
    """Start ``python ARGUMENTS`` in the folder of a log file, and write all output of the process to that file.

    The new process has its own process group, so Ctrl-C interrupts only this process, which then stops the new one.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            python(arguments),
            cwd=log.parent,
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


@contextlib.contextmanager
def started(arguments: Sequence[str], folder: Path, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python ARGUMENTS`` in a folder during a ``with`` block, and stop the process at the end of the block.

    The folder is created if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = start_logged(arguments, folder / LOG_NAME, **changes)
    try:
        yield process
    finally:
        if process.poll() is None:
            _stop(process)


def run_tuner(
    folder: Path, *arguments: str, timeout_s: float | None = PROCESS_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run ``khmer-tuner ARGUMENTS`` in a folder; return its exit code and output.

    A command that takes longer than `timeout_s` is killed; its error output then says so.
    """
    try:
        return subprocess.run(
            python(command(*arguments)),
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            process_group=0,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        problem = f"killed by the harness because it did not exit within {timeout_s:.0f} s"
        return subprocess.CompletedProcess(error.cmd, -signal.SIGKILL, "", problem)


def problem_of(done: subprocess.CompletedProcess[str]) -> str:
    """Check a finished command that only reads a study; return a problem, or an empty text if there is none."""
    errors = done.stderr.strip()
    is_ok = done.returncode == 0 and "lock" not in errors.casefold() and "Traceback" not in errors
    return "" if is_ok else f"exited with {done.returncode}; expected 0 without lock errors or tracebacks: {errors}"


def seconds_of(arguments: Sequence[str], folder: Path, threads: int, **variables: str) -> float:
    """Run ``python ARGUMENTS`` in a folder; return the seconds from the start to the exit of the process.

    Args:
        arguments: Arguments of ``python``.
        folder: Working directory, created if missing.
        threads: Number of threads of the numeric libraries.
        variables: Further environment variables.

    Raises:
        HarnessError: The exit code is not 0.
    """
    started_at = time.perf_counter()
    with started(arguments, folder, **compute_environment(folder, threads), **variables) as process:
        code = process.wait()
    seconds = time.perf_counter() - started_at
    if code:
        raise failure(arguments, folder, code)
    return seconds


def compute_environment(folder: Path, threads: int) -> dict[str, str]:
    """Return environment variables that set the number of threads and the folder for temporary files."""
    return {"OMP_NUM_THREADS": str(threads), "TMPDIR": str(folder)}


def in_subprocess(function: Callable[..., Any], folder: Path, threads: int, **arguments: Any) -> Any:
    """Call a module-level function in a new interpreter; return its result.

    The arguments and the result are passed as JSON.

    Raises:
        HarnessError: The function raised an exception.
    """
    with tempfile.TemporaryDirectory(dir=folder) as path:
        result = Path(path) / "result.json"
        target = f"{function.__module__}:{function.__qualname__}"
        seconds_of(["-m", "harness.processes", target, json.dumps(arguments), str(result)], Path(path), threads)
        return json.loads(result.read_text(encoding="utf-8"))


def failure(arguments: Sequence[str], folder: Path, code: int) -> HarnessError:
    """Return an error with the exit code of ``python ARGUMENTS`` and the last lines of its output."""
    head = f"python {' '.join(arguments[:_SHOWN_ARGUMENTS])} ... exited with {code}; expected 0:"
    return HarnessError(f"{head}\n{tail(output_of(folder))}")


def output_of(folder: Path) -> str:
    """Read the output that the processes in a folder have logged."""
    return (folder / LOG_NAME).read_text(encoding="utf-8", errors="backslashreplace")


def tail(output: str) -> str:
    """Return the last lines of a command's output, each indented."""
    return "\n".join(f"    {line}" for line in output.splitlines()[-_SHOWN_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    atexit.register(gc.freeze)  # as in `tuner.__main__`
    _target, _arguments, _path = sys.argv[1:]
    _result = pkgutil.resolve_name(_target)(**json.loads(_arguments))
    Path(_path).write_text(json.dumps(_result), encoding="utf-8")
