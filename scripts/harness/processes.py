"""Commands of the program, and functions, in new interpreters that import what this process imports."""

from __future__ import annotations

import contextlib
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
LONGEST_LIFE_S = 300.0
_SECONDS_TO_STOP = 20.0
_SHOWN_LINES = 15
_SHOWN_WORDS = 3


def command(*words: str) -> list[str]:
    """Return what follows ``python`` for a command of the program."""
    return ["-m", "tuner", *words]


def python(words: Sequence[str]) -> list[str]:
    """Return the command line of an interpreter that imports nothing from its working directory."""
    return [sys.executable, "-P", *words]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a new interpreter: that of this process, its import path and some changes."""
    paths = [str(Path(__file__).parents[1]), *(folder or os.getcwd() for folder in sys.path)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | changes


def start_logged(words: Sequence[str], log: Path, **changes: str) -> subprocess.Popen[bytes]:
    """Start ``python WORDS`` in the folder of a log that gets all its output.

    It has a process group of its own: Ctrl-C interrupts this process only, which then ends the other one.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            python(words),
            cwd=log.parent,
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


@contextlib.contextmanager
def started(words: Sequence[str], folder: Path, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``python WORDS`` in a folder, which is created if missing; end the process when the block is left."""
    folder.mkdir(parents=True, exist_ok=True)
    process = start_logged(words, folder / LOG_NAME, **changes)
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process)


def give(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program in a folder until it exits; kill it if it hangs, and say so in its errors."""
    try:
        return subprocess.run(
            python(command(*words)),
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            process_group=0,
            timeout=LONGEST_LIFE_S,
        )
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(error.cmd, -signal.SIGKILL, "", f"hung for {LONGEST_LIFE_S:.0f} s")


def problem_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the problem that a command which only reads a study had; empty if none."""
    errors = done.stderr.strip()
    is_well = done.returncode == 0 and "lock" not in errors.casefold() and "Traceback" not in errors
    return "" if is_well else f"exit {done.returncode}: {errors}"


def seconds_of(words: Sequence[str], folder: Path, threads: int, **variables: str) -> float:
    """Return how long ``python WORDS`` takes in a folder from its start to its end.

    Args:
        words: What follows ``python``.
        folder: Its working directory, created if missing.
        threads: Threads of the libraries that it computes with.
        variables: More changes of the environment.

    Raises:
        HarnessError: It failed.
    """
    started_at = time.perf_counter()
    with started(words, folder, **computing(folder, threads), **variables) as process:
        code = process.wait()
    seconds = time.perf_counter() - started_at
    if code:
        raise failure(words, folder, code)
    return seconds


def computing(folder: Path, threads: int) -> dict[str, str]:
    """Return changes of the environment: a number of threads, and the folder for temporary files, as PyTorch's."""
    return {"OMP_NUM_THREADS": str(threads), "TMPDIR": str(folder)}


def elsewhere(function: Callable[..., Any], folder: Path, threads: int, **arguments: Any) -> Any:
    """Return what a module's function returns in a new interpreter; arguments and result must be valid JSON.

    Raises:
        HarnessError: It raised an exception.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        answer = Path(place) / "answer.json"
        target = f"{function.__module__}:{function.__qualname__}"
        seconds_of(["-m", "harness.processes", target, json.dumps(arguments), str(answer)], Path(place), threads)
        return json.loads(answer.read_text(encoding="utf-8"))


def failure(words: Sequence[str], folder: Path, code: int) -> HarnessError:
    """Return an error with a process's exit code and its last output."""
    head = f"exit code {code} of: python {' '.join(words[:_SHOWN_WORDS])} ..."
    return HarnessError(f"{head}\n{tail(output_of(folder))}")


def output_of(folder: Path) -> str:
    """Return what the processes of a folder have logged."""
    return (folder / LOG_NAME).read_text(encoding="utf-8", errors="backslashreplace")


def tail(output: str) -> str:
    """Return the last lines of an output, indented."""
    return "\n".join(f"    {line}" for line in output.splitlines()[-_SHOWN_LINES:])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    _target, _arguments, _path = sys.argv[1:]
    _result = pkgutil.resolve_name(_target)(**json.loads(_arguments))
    Path(_path).write_text(json.dumps(_result), encoding="utf-8")
