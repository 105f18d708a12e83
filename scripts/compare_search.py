#!/usr/bin/env python3
"""Compare the search with other search methods: the same trainings, search space, presets and budget of epochs.

Each competitor searches on small, difficult datasets, once per seed, in a separate process with one thread. All of them
train with the product's training loop, including early stopping, and start with the same presets. Repeating the command
resumes the searches. SMAC3 needs the extra `peers`.

Examples:
  python scripts/compare_search.py --samples 100 --epochs 2 --budget 9 --seeds 3 --work-dir quick_comparison
  python scripts/compare_search.py --seeds 10 11 12 13 14
  python scripts/compare_search.py --seeds 0 1 2 --competitors TPE --variants "--pruner none"
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import psutil
from harness.processes import in_subprocess
from harness.run import HarnessError
from search_comparison.competitors import COMPETITORS, OWN, PRESETS, SMAC, results_path, run_search
from search_comparison.report import Curves, plot, summary, table
from search_comparison.tasks import TASKS, count_presets, prepare
from search_comparison.trainings import load_results

from search_spaces.diagnostics.disk import write_json


def main() -> int:
    """Run all searches that are not finished, and print the tables; return the exit code."""
    options = parsed()
    try:
        searches = run_all(options)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; repeat the command to continue", file=sys.stderr)
        return 130
    curves = {task: {name: read(task, name, options) for name in searches} for task in options.tasks}
    data = {task: summary(found, read(task, PRESETS, options), OWN) for task, found in curves.items()}
    settings = {"seeds": options.seeds, "budget": options.budget, "epochs": options.epochs}
    write_json(options.work_dir / "comparison.json", settings | data)
    plot(curves, options.work_dir / "comparison.png")
    print("\n\n".join(table(task, figures) for task, figures in data.items()))
    return 0


def parsed() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = [name for name in COMPETITORS if name != PRESETS]
    add = parser.add_argument
    add("--work-dir", type=Path, default=Path("comparison"), help="work folder (default: %(default)s)")
    add("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="datasets (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds (default: 0 1 2 3 4)")
    add("--competitors", nargs="+", default=peers, choices=peers, help="competitors (default: all)")
    add(
        "--variants",
        nargs="+",
        default=[],
        metavar="OPTIONS",
        help="options of `khmer-tuner run`; each adds one more own search",
    )
    add("--budget", type=int, default=360, help="epochs per search, presets included (default: %(default)s)")
    add("--epochs", type=int, default=24, help="maximum epochs per trial (default: %(default)s)")
    add("--samples", type=int, help="images per dataset and test split, for a quick check (default: those of the task)")
    add("--jobs", type=int, default=2, help="number of searches in parallel (default: %(default)s)")
    options = parser.parse_args()
    if SMAC in options.competitors and importlib.util.find_spec("smac") is None:
        parser.error("SMAC3: its package is not installed; pip install -e '.[peers]', or choose other --competitors")
    least = count_presets() * options.epochs
    if min(options.epochs, options.jobs) < 1 or options.budget <= least:
        parser.error(
            f"--epochs, --jobs, --budget: found {options.epochs}, {options.jobs}, {options.budget}; expected at least "
            f"1, 1, and more than the {least} epochs of the presets"
        )
    options.seeds = sorted(set(options.seeds))
    return options


def run_all(options: argparse.Namespace) -> list[str]:
    """Run or resume all searches; return the names of the own search, of its variants and of the competitors.

    After an error or Ctrl-C, no further search is started, and the running ones are ended.
    """
    for task in options.tasks:
        sizes = {"samples": options.samples, "test_samples": options.samples} if options.samples else {}
        prepare(replace(TASKS[task], **sizes), options.work_dir / task, options.epochs, options.budget)
    os.environ["PYTHONHASHSEED"] = "0"  # for the new processes: SMAC3's samples depend on the order of sets
    searches = [OWN, *(f"{OWN} {variant}" for variant in options.variants), *options.competitors]
    for names in ([PRESETS], searches):  # the presets first, because the competitors read their trainings
        jobs = itertools.product(options.tasks, options.seeds, names)
        with ThreadPoolExecutor(options.jobs) as pool:
            futures = [pool.submit(run, *job, options) for job in jobs]
            try:
                for done in wait(futures, return_when=FIRST_EXCEPTION).done:
                    done.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in psutil.Process().children(recursive=True):
                    process.terminate()
    return searches


def run(task: str, seed: int, name: str, options: argparse.Namespace) -> None:
    """Run or resume one search in a new process with one thread, unless its results exist."""
    folder = (options.work_dir / task).resolve()
    if not (folder / results_path(name, seed)).exists():
        in_subprocess(run_search, folder, 1, task_folder=str(folder), name=name, seed=seed, budget=options.budget)
        print(f"complete: {task}, {name}, seed {seed}", file=sys.stderr, flush=True)


def read(task: str, name: str, options: argparse.Namespace) -> Curves:
    """Read the finished searches of one competitor."""
    folder = options.work_dir / task
    return Curves.of([load_results(folder / results_path(name, seed)) for seed in options.seeds], options.budget)


if __name__ == "__main__":
    sys.exit(main())
