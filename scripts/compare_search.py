#!/usr/bin/env python3
"""Compare the search with what people would use instead: the same trainings, space, presets and budget of epochs.

Each competitor searches on small, difficult datasets, once per seed, in a separate process with one thread. All of them
train with the product's training loop, including early stopping, and start with the same presets. Repeating the command
resumes the searches. The competitors need the packages of the extra `peers`.

Examples:
  python scripts/compare_search.py --seeds 10 11 12 13 14
  python scripts/compare_search.py --seeds 0 1 2 --competitors khmer-tuner --variants "--pruner none"
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.processes import in_subprocess
from search_comparison.competitors import COMPETITORS, OWN, PRESETS, results_path, run_search
from search_comparison.report import Curves, plot, summary, table
from search_comparison.tasks import TASKS, prepare
from search_comparison.trainings import load_results


def main() -> int:
    """Run all searches that are not finished, and print the tables."""
    options = parsed()
    searches = [*options.competitors, *(f"{OWN} {variant}" for variant in options.variants)]
    for task in options.tasks:
        prepare(TASKS[task], options.work_dir / task, options.epochs)
    with ThreadPoolExecutor(options.jobs) as pool:
        for names in ([PRESETS], searches):  # the presets first, because the competitors read their trainings
            jobs = itertools.product(options.tasks, options.seeds, names)
            for done in [pool.submit(run, *job, options) for job in jobs]:
                done.result()
    curves = {task: {name: read(task, name, options) for name in searches} for task in options.tasks}
    data = {task: summary(found, read(task, PRESETS, options), searches[0]) for task, found in curves.items()}
    (options.work_dir / "comparison.json").write_text(json.dumps(data, indent=1))
    plot(curves, options.work_dir / "comparison.png")
    print("\n\n".join(table(task, figures) for task, figures in data.items()))
    return 0


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    competitors = [OWN, *(name for name in COMPETITORS if name != PRESETS)]
    parser.add_argument(
        "--work-dir", type=Path, default=Path("search_comparison"), help="work folder (default: %(default)s)"
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="datasets (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds (default: 0 1 2 3 4)")
    parser.add_argument("--competitors", nargs="+", default=competitors, choices=competitors, help="default: all")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[],
        metavar="OPTIONS",
        help="also search with these options of the own search",
    )
    parser.add_argument(
        "--budget",
        type=int,
        default=360,
        help="epochs per search, with those of the presets (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=24, help="maximum epochs per trial (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="number of searches in parallel (default: %(default)s)")
    return parser.parse_args()


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
