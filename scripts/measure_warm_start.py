#!/usr/bin/env python3
"""Measure warm starts: search trials until the earlier study's best value is reached, and transfer to other fonts.

For each seed, earlier studies search a small, difficult dataset in a wide and in a narrow space. New studies with
another seed then search a narrower or a wider space, with and without `--warm-start`. Repeating the command resumes.

Example: python scripts/measure_warm_start.py --seeds 0 1 2 3 4 --work-dir warm_start
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from harness.processes import run_tuner
from harness.run import HarnessError
from search_comparison.tasks import EXPERIMENTS_FILE, SPACE, SPACE_FILE, TASKS, prepare

from search_spaces.diagnostics.atomic_files import write_text
from studies import TrialKind, latest_records, load_study

EARLIER_TRIALS, MOST_TRIALS, STEP, TRANSFER_TRIALS = 20, 40, 4, 8
NEW_SEED = 100  # added to the seed of the earlier study
# The best learning rates for this dataset are above this range.
NARROW = re.sub("learning_rate: {[^}]*}", "learning_rate: {low: 1e-5, high: 1e-3, log: true}", SPACE)


def main() -> None:
    """Run all searches that are not finished, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of the earlier studies")
    parser.add_argument("--epochs", type=int, default=24, help="maximum epochs per trial (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("warm_start"), help="work folder (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="number of searches in parallel (default: %(default)s)")
    parser.add_argument(
        "--parts", nargs="+", default=["earlier", "cold", "warm"], help="searches to run (default: all)"
    )
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
        for name, text in {"wide": SPACE, "narrow": NARROW}.items():
            _search(same, f"{name}_{seed}", _space_file(same, name, text), seed, EARLIER_TRIALS)
        best = _best_params(same / f"wide_{seed}")
        _space_file(same, f"narrowed_{seed}", _narrowed(SPACE, best))
        return
    for name, earlier, space in _pairs(seed):
        goal, folder, trials = _best(_values(same / f"{earlier}_{seed}")), f"{name}_{part}_{seed}", 0
        options = ["--warm-start", f"{earlier}_{seed}"] if part == "warm" else []
        while trials < MOST_TRIALS and _best(_values(same / folder)) < goal:
            trials += STEP
            _search(same, folder, space, seed + NEW_SEED, trials, *options)
    options = ["--warm-start", str((same / f"wide_{seed}").resolve())] if part == "warm" else []
    _search(other, f"transfer_{part}_{seed}", SPACE_FILE, seed + NEW_SEED, TRANSFER_TRIALS, *options)


def _pairs(seed: int) -> list[tuple[str, str, str]]:
    """Return the name, the earlier study and the space file of each new search on the same dataset."""
    return [("narrowed", "wide", f"narrowed_{seed}.yaml"), ("widened", "narrow", "wide.yaml")]


def _search(folder: Path, name: str, space: str, seed: int, trials: int, *options: str) -> None:
    """Search until the study has this number of search trials."""
    missing = trials - len(_values(folder / name))
    if missing <= 0:
        return
    arguments = ["search", "--trials", str(missing), "--output-dir", name, "--threads", "1"]
    if not (folder / name).exists():
        arguments += ["--config", EXPERIMENTS_FILE, "--set", f"training.seed={seed}", "--space", space, *options]
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


def _best(values: list[float]) -> float:
    return max(values, default=0.0)


def _best_params(folder: Path) -> dict[str, object]:
    study, _ = load_study(folder)
    return study.best_trial.params


def _space_file(folder: Path, name: str, text: str) -> str:
    base = (folder / SPACE_FILE).read_text(encoding="utf-8").partition("\n")[0]
    write_text(folder / f"{name}.yaml", f"{base}\n{text}")
    return f"{name}.yaml"


def _narrowed(text: str, best: dict[str, object]) -> str:
    """Halve each unconditional range of a space around the values of the best trial, as a user would."""
    space = yaml.load(text.replace("1e-", "1.0e-").replace("3e-", "3.0e-"), yaml.SafeLoader)["space"]
    for name, item in space.items():
        if not isinstance(item, dict) or "low" not in item or "when" in item:
            continue
        low, high, value = float(item["low"]), float(item["high"]), float(best[name])  # type: ignore[arg-type]
        if item.get("log"):
            width = math.log(high / low) / 4
            item["low"], item["high"] = max(low, value / math.exp(width)), min(high, value * math.exp(width))
        else:
            steps = round((high - low) / item["step"] / 4) * item["step"]
            item["low"], item["high"] = max(int(low), int(value) - steps), min(int(high), int(value) + steps)
    return yaml.safe_dump({"space": space}, sort_keys=False)


def _print_tables(work: Path, seeds: list[int]) -> None:
    same, other = work / "letters", work / "other_fonts"
    print("| space | seed | goal | trials without | trials with warm start |\n|---|---|---|---|---|")
    ratios = []
    for seed, (name, earlier, _) in itertools.product(seeds, _pairs(0)):
        goal = _best(_values(same / f"{earlier}_{seed}"))
        counts = [_trials_to(goal, _values(same / f"{name}_{part}_{seed}")) for part in ("cold", "warm")]
        ratios.append(counts[1] / counts[0])
        shown = [str(count) if count <= MOST_TRIALS else f"more than {MOST_TRIALS}" for count in counts]
        print(f"| {name} | {seed} | {goal:.4f} | {' | '.join(shown)} |")
    print(f"\nmedian ratio: {statistics.median(ratios):.2f}\n")
    print(
        f"| other fonts, best after {TRANSFER_TRIALS} trials | " + " | ".join(f"seed {seed}" for seed in seeds), end=""
    )
    print(" | mean (sd) |\n|" + "---|" * (len(seeds) + 2))
    for part in ("cold", "warm"):
        best = [_best(_values(other / f"transfer_{part}_{seed}")) for seed in seeds]
        spread = statistics.stdev(best) if len(best) > 1 else 0.0
        shown = " | ".join(f"{value:.4f}" for value in best)
        print(f"| {part} | {shown} | {statistics.mean(best):.4f} ({spread:.4f}) |")


def _trials_to(goal: float, values: list[float]) -> int:
    """Return the number of trials until a value reaches the goal; `MOST_TRIALS` + 1 if none does."""
    return next((number for number, value in enumerate(values, start=1) if value >= goal), MOST_TRIALS + 1)


if __name__ == "__main__":
    main()
