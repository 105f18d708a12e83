"""Commands and functions in processes of their own, which end with this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SECONDS_TO_STOP = 20.0
_SHOWN_LINES = 15
_SHOWN_WORDS = 3


class BenchmarkError(Exception):
    """Something that is measured does not do what it should; nothing is known of its speed then."""


@contextlib.contextmanager
def started(words: list[str], folder: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Begin a Python process in a folder, and end it when the block is left; its output goes to a file there.

    Args:
        words: What follows ``python``.
        folder: Its working directory, made if missing.
        threads: Threads of the libraries that it computes with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": _import_path(),
        "TMPDIR": str(folder),  # where PyTorch makes a cache folder when it is asked for FLOPs, and leaves it
    }
    environment.pop("KHMER_TUNER_STORAGE", None)
    with output_of(folder).open("wb") as output:
        # In a group of its own: Ctrl-C reaches us alone, and it through us.
        process = subprocess.Popen(
            [sys.executable, "-P", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, and kill it if it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def command(*words: str) -> list[str]:
    """Return what follows ``python`` for a command of the program."""
    return ["-m", "tuner", *words]


def seconds_of(words: list[str], folder: Path, threads: int) -> float:
    """Return how long a process takes from its start to its end.

    Raises:
        BenchmarkError: It failed.
    """
    begun = time.perf_counter()
    with started(words, folder, threads) as process:
        code = process.wait()
    seconds = time.perf_counter() - begun
    if code:
        raise failure(words, folder, code)
    return seconds


def elsewhere(function: Callable[..., Any], folder: Path, threads: int, **arguments: Any) -> Any:
    """Return what a function of a module returns in a new interpreter; arguments and answer are plain data.

    Raises:
        BenchmarkError: It raised something.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        answer = Path(place) / "answer.json"
        target = f"{function.__module__}:{function.__qualname__}"
        words = ["-m", "benchmark.child", target, json.dumps(arguments), str(answer)]
        seconds_of(words, Path(place), threads)
        return json.loads(answer.read_text(encoding="utf-8"))


def failure(words: list[str], folder: Path, code: int) -> BenchmarkError:
    """Return an error that tells how a process failed, and what it said last."""
    last = output_of(folder).read_text(encoding="utf-8", errors="backslashreplace").splitlines()[-_SHOWN_LINES:]
    return BenchmarkError("\n".join([f"exit code {code} of: python {' '.join(words[:_SHOWN_WORDS])} ...", *last]))


def output_of(folder: Path) -> Path:
    """Return where a process's output goes."""
    return folder / "output.txt"


def _import_path() -> str:
    # What this process imports, and no file of the working directory that happens to have the same name.
    return os.pathsep.join([str(Path(__file__).parents[1]), *(folder or os.getcwd() for folder in sys.path)])
