"""Worker processes that make pictures, and what happens when one of them fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from tuner.data.rendering.sample import Sample
from tuner.data.rendering.worker import Chunk, Task, samples_from_json, write_chunk

ChunkDone = Callable[[Chunk, list[Sample]], None]

_WORKER = "tuner.data.rendering.worker"


def default_processes() -> int:
    """Return the number of processor cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_chunks(task: Task, chunks: Sequence[Chunk], processes: int, on_done: ChunkDone) -> None:
    """Make the pictures of all `chunks`, in any order; `on_done` is called for each, never twice at a time.

    Raises:
        OSError: If a picture cannot be written or a worker process dies.
    """
    if processes == 1:
        for chunk in chunks:
            on_done(chunk, write_chunk(task, chunk))
        return
    workers = [_start_worker() for _ in range(processes)]
    try:
        _serve(workers, task, chunks, on_done)
    finally:
        for worker in workers:
            worker.kill()  # nothing they still do is wanted, after success as after failure
        for worker in workers:
            worker.communicate()


def _start_worker() -> subprocess.Popen[str]:
    # Not multiprocessing: that imports the caller's main module again, and a script without a main guard
    # would start the whole product once more in every worker.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _WORKER],  # -P: no module of the working directory shadows ours
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        process_group=0,  # Ctrl-C in a terminal is for this process, which then ends its workers
    )


def _serve(workers: Sequence[subprocess.Popen[str]], task: Task, chunks: Sequence[Chunk], on_done: ChunkDone) -> None:
    """Let each worker take chunk after chunk; a thread per worker waits for its answers."""
    remaining = iter(chunks)
    lock = threading.Lock()

    def drive(worker: subprocess.Popen[str]) -> None:
        _send(worker, task.as_json())
        while (chunk := _take(remaining, lock)) is not None:
            _send(worker, json.dumps(vars(chunk)))
            samples = _answer(worker)
            with lock:
                on_done(chunk, samples)

    with ThreadPoolExecutor(len(workers)) as threads:
        try:
            futures = [threads.submit(drive, worker) for worker in workers]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            for worker in workers:
                worker.kill()  # the threads wait for their workers, and this block for the threads
            raise


def _take(remaining: Iterator[Chunk], lock: threading.Lock) -> Chunk | None:
    with lock:
        return next(remaining, None)


def _send(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(line + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        raise _ended(worker) from None


def _answer(worker: subprocess.Popen[str]) -> list[Sample]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise _ended(worker)
    answer = json.loads(line)
    if "error" in answer:
        raise OSError(*answer["error"])
    return samples_from_json(answer["samples"])


def _ended(worker: subprocess.Popen[str]) -> ChildProcessError:
    return ChildProcessError(f"a generating process ended by itself (exit status {worker.wait()})")
