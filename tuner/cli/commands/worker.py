"""Join a study as a worker and train its pending trials.

Examples:
  khmer-tuner worker
  khmer-tuner worker --output-dir training_output --device cpu
  timeout 10 khmer-tuner worker --wait
  khmer-tuner worker --ray local --workers 2

Any number of workers can train the trials of a study in parallel. If the study
is stored in PostgreSQL (--storage or $KHMER_TUNER_STORAGE), they can run on
different machines. With --ray, Ray starts the workers on the nodes of a cluster
and restarts them when a node is lost; the command shows their progress. Workers
write no results file; use `export` instead.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.cli.errors import FAILED, SUCCESS, collector
from tuner.cli.existing_study import open_session, prepare_training
from tuner.cli.options import (
    MOST_THREADS,
    MOST_WORKERS,
    STORAGE_VARIABLE,
    Command,
    InvalidValue,
    above_zero,
    add_device_option,
    add_flag,
    add_metadata_option,
    add_option,
    add_study_options,
    add_threads_option,
    non_empty,
    whole_number,
)

if TYPE_CHECKING:
    from tuner.session.session import Session
    from tuner.session.study_setup import ExistingStudy
    from tuner.workers.ray_cluster import RayCluster


def _add_options(parser: argparse.ArgumentParser) -> None:
    wait = (
        "when no trial is pending, wait for trials that `enqueue`, `run` or `search` add; `khmer-tuner stop`, Ctrl-C "
        "or SIGTERM stop the worker"
    )
    add_flag(parser, "--wait", wait)
    workers = "number of workers: processes on this machine or, with --ray, tasks in the cluster"
    add_option(parser, "--workers", "N", whole_number(1, MOST_WORKERS), workers, default=1)
    add_threads_option(parser)
    add_metadata_option(parser)
    add_device_option(parser)
    group = parser.add_argument_group("workers in a Ray cluster (pip install 'khmer-ocr-tuner[ray]')")
    address = "address of the cluster as in ray.init: auto, HOST:PORT, ray://HOST:PORT, or local for a new one"
    add_option(group, "--ray", "ADDRESS", non_empty, address)
    cpus = "CPUs that Ray reserves for each worker (default: its number of threads, which is 1 in a new study)"
    add_option(group, "--cpus", "C", whole_number(1, MOST_THREADS), cpus)
    gpus = "GPUs that Ray reserves for each worker; several workers share a GPU if G is a fraction (default: none)"
    add_option(group, "--gpus", "G", _gpus, gpus)
    add_study_options(parser)


def _gpus(text: str) -> float | InvalidValue:
    expected = "a fraction from 0.0001 to 1, or a whole number"
    number = above_zero(expected, below=1000)(text)
    is_valid = isinstance(number, float) and (0.0001 <= number <= 1 or number.is_integer())
    return number if is_valid else InvalidValue(f"found {text!r}; expected {expected}")


def _prepare(options: argparse.Namespace) -> ExistingStudy:
    problems = collector(options)
    problems.add(_ray_problems(options))
    with problems.collect():
        existing = prepare_training(options)
        problems.add(_password_problems(options))
    problems.raise_all()
    return existing


def _ray_problems(options: argparse.Namespace) -> Iterator[str]:
    if options.ray is None:
        for name in ("cpus", "gpus"):
            if vars(options)[name] is not None:
                yield f"--{name}: found without --ray; add --ray ADDRESS, or remove --{name}"
        return
    if importlib.util.find_spec("ray") is None:
        yield "--ray: the Python package 'ray' is missing; install it: pip install 'khmer-ocr-tuner[ray]'"
    if options.threads is not None and options.threads > (options.cpus or options.threads):
        yield f"--threads: found {options.threads} with --cpus {options.cpus}; expected at most one thread per CPU"
    if options.device == "cuda" and options.gpus is None:
        yield "--device cuda: found without --gpus, so Ray reserves no GPU for the workers; add --gpus G"


def _password_problems(options: argparse.Namespace) -> Iterator[str]:
    from studies import has_secret

    url = options.storage
    if options.ray is not None and url is not None and has_secret(url) and any(url in word for word in sys.argv):
        yield (
            "--storage: found a URL with a password, but Ray shows the command line to all users of its dashboard; "
            f"put the URL in ${STORAGE_VARIABLE} and leave out --storage, or put the password in ~/.pgpass"
        )


def run(options: argparse.Namespace, existing: ExistingStudy) -> int:
    """Train pending trials until no trial is pending or the worker is stopped."""
    from studies import TrialPhase
    from tuner.cli.display_factory import open_display
    from tuner.session.run_options import StopConditions, TrialFilter
    from tuner.workers.loop import finished_trials, work

    trial_filter = TrialFilter()
    with open_display(with_summary=False, debug=options.debug) as display, _connect(options, existing) as cluster:
        session = open_session(options, existing, display)
        if cluster is not None:
            session = _prepare_cluster(cluster, session, options)
        work(
            session,
            trial_filter,
            StopConditions(),
            options.workers,
            threads=options.threads,
            wait=options.wait,
            wait_for_others=cluster is not None,
            cluster=cluster,
        )
    new = [
        record
        for record in finished_trials(session, trial_filter)
        if record.number not in session.context.finished_before
    ]
    all_failed = bool(new) and all(record.phase is TrialPhase.FAILED for record in new)
    return FAILED if trial_filter.skipped or all_failed else SUCCESS


@contextlib.contextmanager
def _connect(options: argparse.Namespace, existing: ExistingStudy) -> Iterator[RayCluster | None]:
    """Connect to the Ray cluster of ``--ray``; None without this option."""
    if options.ray is None:
        yield None
        return
    from tuner.workers.ray_cluster import RayCluster

    with (
        open(os.devnull, "w") as null,
        contextlib.redirect_stdout(null),  # Ray prints reports of lost nodes there
        RayCluster(options.ray, cpus=options.cpus or options.threads, gpus=options.gpus or 0) as cluster,
    ):
        cluster.check_storage(existing.storage_url)
        yield cluster


def _prepare_cluster(cluster: RayCluster, session: Session, options: argparse.Namespace) -> Session:
    """Choose the number of CPUs of a worker; return the session with all that workers on other nodes need."""
    from search_spaces.diagnostics.wording import counted
    from studies import study_threads, url_with_password

    cluster.cpus = cluster.cpus or study_threads(session.study) or 1
    note = session.context.display.note
    if (capacity := cluster.capacity) < options.workers:
        each = counted(cluster.cpus, "CPU") + (f" and {cluster.gpus:g} GPUs" if cluster.gpus else "")
        note(
            f"the Ray cluster can run {capacity} of {options.workers} workers with {each} each; Ray starts the others "
            "when it has more nodes"
        )
    if cluster.has_gpus and not cluster.gpus:
        note("the workers train on the CPU, because no GPU is reserved for them; --gpus reserves GPUs")
    device = options.device if cluster.gpus else "cpu"
    url = url_with_password(session.study, session.storage_url)
    return replace(session, storage_url=url, context=replace(session.context, device=device))


COMMAND = Command(__name__, __doc__, _add_options, _prepare, run)
