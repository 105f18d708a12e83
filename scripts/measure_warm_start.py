#!/usr/bin/env python3
"""Measure warm starts: search trials until the earlier study's best value is reached, and transfer to other fonts.

For each seed, earlier studies search a small, difficult dataset in a wide space and in a space that is too narrow. Then
new studies with another seed search a narrower space, a wider space, and the wide space on another dataset, with and
without `--warm-start`. Repeating the command resumes.

Example: python scripts/measure_warm_start.py --seeds 0 1 2 3 4 --work-dir warm_start
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.processes import run_tuner
from harness.run import HarnessError
from search_comparison.tasks import EXPERIMENTS_FILE, SPACE, SPACE_FILE, TASKS, prepare

from search_spaces.diagnostics.atomic_files import write_text
from studies import TrialKind, latest_records, load_study

EARLIER_TRIALS, MOST_TRIALS, STEP, TRANSFER_TRIALS = 20, 20, 3, 8
NEW_SEED = 100  # added to the seed of the earlier study


def _with_ranges(**ranges: str) -> str:
    """Return the space with other ranges of some settings."""
    text = SPACE
    for name, limits in ranges.items():
        text = re.sub(rf"{name}: {{low: [^,]*, high: [^,}}]*", f"{name}: {{{limits}", text)
    return text


SPACES = {
    "wide": SPACE,
    "narrowed": _with_ranges(
        batch_size="low: 8, high: 48", learning_rate="low: 1e-4, high: 1e-2", weight_decay="low: 1e-5, high: 1e-2"
    ),
    # Without the small batches and the high learning rates that are best for this dataset.
    "too_narrow": _with_ranges(batch_size="low: 40, high: 96", learning_rate="low: 1e-5, high: 3e-3"),
}
# The name of each new search on the same dataset, with the spaces of the earlier and of the new study.
PAIRS = {"narrowed": ("wide", "narrowed"), "widened": ("too_narrow", "wide")}


def main() -> None:
    """Run all searches that are not finished, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of the earlier studies")
    parser.add_argument("--epochs", type=int, default=24, help="maximum epochs per trial (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("warm_start"), help="work folder (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="number of searches in parallel (default: %(default)s)")
    parts = ["earlier", "cold", "warm"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts, help="searches to run (default: all)")
    options = parser.parse_args()
    task = TASKS["letters"]
    fonts = {"letters": task.font_files[::2], "other_fonts": task.font_files[1::2]}
    for name, files in fonts.items():
        prepare(replace(task, font_files=files), options.work_dir / name, options.epochs, 0)
    for part in options.parts:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(partial(_run, options.work_dir, part), options.seeds))
    if "warm" in options.parts:
        _print_tables(options.work_dir, options.seeds)


def _run(work: Path, part: str, seed: int) -> None:
    """Run one part of the searches for one seed."""
    same, other = work / "letters", work / "other_fonts"
    if part == "earlier":
        for space in ("wide", "too_narrow"):
            _search(same, f"{space}_{seed}", space, seed, EARLIER_TRIALS)
        return
    for name, (old, space) in PAIRS.items():
        goal, folder, trials = max(_values(same / f"{old}_{seed}")), f"{name}_{part}_{seed}", 0
        options = ["--warm-start", f"{old}_{seed}"] if part == "warm" else []
        while trials < MOST_TRIALS and max(_values(same / folder), default=0.0) < goal:
            trials += STEP
            _search(same, folder, space, seed + NEW_SEED, trials, *options)
    options = ["--warm-start", str((same / f"wide_{seed}").resolve())] if part == "warm" else []
    _search(other, f"transfer_{part}_{seed}", "wide", seed + NEW_SEED, TRANSFER_TRIALS, *options)


def _search(folder: Path, name: str, space: str, seed: int, trials: int, *options: str) -> None:
    """Search until the study has this number of search trials."""
    missing = trials - len(_values(folder / name))
    if missing <= 0:
        return
    base = (folder / SPACE_FILE).read_text(encoding="utf-8").partition("\n")[0]
    write_text(folder / f"{space}.yaml", f"{base}\n{SPACES[space]}")
    arguments = ["search", "--trials", str(missing), "--output-dir", name, "--threads", "1"]
    if not (folder / name).exists():
        arguments += [
            "--config",
            EXPERIMENTS_FILE,
            "--set",
            f"training.seed={seed}",
            "--space",
            f"{space}.yaml",
            *options,
        ]
    done = run_tuner(folder, *arguments, "--results-file", f"{name}.json", timeout_s=None)
    if done.returncode != 0:
        raise HarnessError(f"khmer-tuner {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr}")
    print(
        f"{folder.name}/{name}: {trials} trials", *re.findall("warm start.*", done.stderr), file=sys.stderr, flush=True
    )


def _values(folder: Path) -> list[float]:
    """Return the best accuracy of each finished search trial, in order of number; [] without a study."""
    if not folder.exists():
        return []
    study, _ = load_study(folder)
    records = [record for record in latest_records(study) if record.kind is TrialKind.SEARCH]
    return [record.outcome.best_val_char_accuracy for record in records if record.outcome is not None]


def _print_tables(work: Path, seeds: list[int]) -> None:
    same, other = work / "letters", work / "other_fonts"
    print("| new space | seed | goal | trials without | trials with warm start |\n|---|---|---|---|---|")
    counts: dict[str, list[int]] = {"cold": [], "warm": []}
    for (name, (old, _)), seed in itertools.product(PAIRS.items(), seeds):
        goal = max(_values(same / f"{old}_{seed}"))
        for part, found in counts.items():
            found.append(_trials_to(goal, _values(same / f"{name}_{part}_{seed}")))
        shown = [
            str(found[-1]) if found[-1] <= MOST_TRIALS else f"more than {MOST_TRIALS}" for found in counts.values()
        ]
        print(f"| {name} | {seed} | {goal:.4f} | {' | '.join(shown)} |")
    medians = {
        name: [statistics.median(found[start : start + len(seeds)]) for found in counts.values()]
        for name, start in zip(PAIRS, itertools.count(0, len(seeds)))
    }
    for name, (cold, warm) in medians.items():
        print(f"{name}: median {cold:g} trials without, {warm:g} with warm start, ratio {warm / cold:.2f}")
    print(
        f"\n| other fonts, best after {TRANSFER_TRIALS} trials | {' | '.join(f'seed {seed}' for seed in seeds)}", end=""
    )
    print(" | mean (sd) |\n|" + "---|" * (len(seeds) + 2))
    for part in counts:
        best = [max(_values(other / f"transfer_{part}_{seed}")) for seed in seeds]
        spread = statistics.stdev(best) if len(best) > 1 else 0.0
        print(f"| {part} | {' | '.join(f'{one:.4f}' for one in best)} | {statistics.mean(best):.4f} ({spread:.4f}) |")


def _trials_to(goal: float, values: list[float]) -> int:
    """Return the number of trials until a value reaches the goal; `MOST_TRIALS` + 1 if none does."""
    return next((number for number, value in enumerate(values, start=1) if value >= goal), MOST_TRIALS + 1)


if __name__ == "__main__":
    main()
