"""The threads of the workers, which are fixed when the training of a study starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from search_spaces.diagnostics.wording import counted
from studies import fix_threads, search_settings
from tuner.cores import usable_cores
from tuner.session.session import Session
from tuner.workers.process import threads_per_worker


@contextlib.contextmanager
def pytorch_threads(threads: int) -> Iterator[None]:
    """Train with this number of PyTorch threads in the body of a ``with`` statement."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def note_idle_workers(session: Session, workers: int) -> None:
    """Note if the parallelism of the study's search leaves workers without a trial."""
    settings = search_settings(session.study)
    if settings is not None and (parallelism := settings.parallelism) < workers:
        session.context.display.note(
            f"the parallelism of the study's search is {parallelism}, so only {parallelism} of {workers} workers train "
            "search trials at the same time; a new study accepts a larger --parallelism"
        )


def fix_worker_threads(session: Session, workers: int, wanted: int | None, cpus: int | None = None) -> int:
    """Return the number of threads of each worker: that of the study, which this fixes, or fewer for lack of CPUs.

    Args:
        session: The opened study.
        workers: The number of workers.
        wanted: The number of threads that the user wants; None for the usual number.
        cpus: The number of CPUs of each worker in a cluster; None if the workers share the CPUs of this machine.
    """
    usual = cpus or threads_per_worker(torch.get_num_threads(), workers)
    threads = fix_threads(session.study, session.context.folder, wanted or usual)
    most = cpus or threads_per_worker(max(usable_cores(), torch.get_num_threads()), workers)
    if threads > most:
        place = "--cpus reserves" if cpus else "this machine has"
        session.context.display.note(
            f"the study's workers train with {counted(threads, 'thread')} each, but {place} only {most} per worker, "
            f"so they train with {most}; CPU results may differ slightly"
        )
    return min(threads, most)
