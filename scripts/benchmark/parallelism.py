"""Throughput of a search by parallelism, relative to a search in which no trial waits: measured and simulated."""

from __future__ import annotations

import heapq
import math
import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from harness.processes import command, seconds_of
from harness.run import HarnessError
from rich.table import Table

from benchmark.plan import Figures, Plan, write_experiments
from search_spaces import TrainingConfig
from studies import load_study
from tuner.data.generation import generate_dataset
from tuner.display.terminal import plain_table

_WORKERS = 2
_DEFAULT, _CONTRASTS, _REPETITIONS = 2 * _WORKERS, (1, 2), 3
_TRIALS, _QUICK_TRIALS = 20, 6
_EPOCHS, _QUICK_EPOCHS = 30, 8
_SAMPLES, _QUICK_SAMPLES = 500, 40
# Fast and slow networks and early stopping give trials of very different durations.
_MODELS = """\
models:
  small: {decoder: attention, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 32,
          context_layers: 0}
  medium: {decoder: attention, stem_channels: [16, 32], stage_channels: [64, 96], blocks_per_stage: 0, width: 96}
"""
_SPACE = """\
space:
  model_name: [small, medium]
  batch_size: {low: 16, high: 64, step: 16}
  learning_rate: {low: 1e-4, high: 3e-2, log: true}
"""
_SIMULATED_WORKERS, _SIMULATED_FACTORS = (2, 4, 8, 16), (1, 2, 3, 4)
_SIMULATED_TRIALS = 20_000
# Seconds per epoch of small, medium, large (measured on the Xeon) and ctc (assumed to be as fast as medium).
_EPOCH_SECONDS = {"all models": (4.3, 5.7, 12.4, 5.7), "one model": (5.7,)}


def measure(plan: Plan) -> Figures:
    """Measure searches of two workers with several parallelisms, and simulate searches of up to 16 workers."""
    trials = _QUICK_TRIALS if plan.quick else _TRIALS
    samples = _QUICK_SAMPLES if plan.quick else _SAMPLES
    metadata = generate_dataset(plan.folder / "parallelism_data", samples=samples, test_samples=1)
    figures: Figures = {"trials": trials, "measured": {}, "simulated": simulated()}
    for seed in range(1 if plan.quick else _REPETITIONS):
        values = (*(() if seed or plan.quick else _CONTRASTS), _DEFAULT, trials)
        # Forwards and backwards, so that a slow drift of the machine's speed cancels.
        for order in (values, values[::-1])[: 1 if plan.quick else None]:
            searches = {value: _search(plan, metadata, seed, value, trials) for value in order}
            for value, found in compared(searches).items():
                figures["measured"].setdefault(str(value), []).append(found)
    return figures


def tables(figures: Figures) -> list[Table]:
    """Return a table of the measured durations and a table of the simulated throughput, relative to no window."""
    trials, measured = figures["trials"], figures["measured"]
    title = f"parallelism ({_WORKERS} workers, {trials} trials)"
    headers = ("seconds", "relative duration", "range", "simulated duration", "workers idle", "simulated idle")
    durations = plain_table(title, *headers, right=(0, 1, 2, 3, 4, 5, 6))
    for value in sorted(measured, key=int):
        ratios = [found["ratio"] for found in measured[value]]
        mean = {name: statistics.mean(found[name] for found in measured[value]) for name in measured[value][0]}
        durations.add_row(
            f"{value} (no window)" if int(value) == trials else value,
            f"{mean['seconds']:.1f}",
            f"{mean['ratio']:.3f}",
            f"{min(ratios):.3f} to {max(ratios):.3f}",
            f"{mean['simulated_ratio']:.3f}",
            f"{mean['idle_share']:.1%}",
            f"{mean['simulated_idle_share']:.1%}",
        )
    headers = tuple(f"P = {factor} x workers" for factor in _SIMULATED_FACTORS)
    throughput = plain_table("simulated throughput", "workers", *headers, right=tuple(range(1, 2 + len(headers))))
    for kind, by_workers in figures["simulated"].items():
        for workers, shares in by_workers.items():
            throughput.add_row(kind, workers, *(f"{share:.1%}" for share in shares.values()))
    return [durations, throughput]


def makespan(lengths: Sequence[float], workers: int, parallelism: int) -> float:
    """Simulate a search; return the time from the start of the first trial to the end of the last.

    A free worker claims the next trial. Trial n starts once all trials numbered ``n - parallelism`` and below have
    finished; with a parallelism of the number of trials, no trial waits.
    """
    free_at, ends, may_start = [0.0] * workers, list[float](), 0.0
    for number, length in enumerate(lengths):
        if number >= parallelism:
            may_start = max(may_start, ends[number - parallelism])
        ends.append(max(may_start, heapq.heappop(free_at)) + length)
        heapq.heappush(free_at, ends[-1])
    return max(ends)


def simulated() -> Figures:
    """Return the throughput relative to no window, keyed by models, number of workers and parallelism."""
    figures: Figures = {}
    for kind, epoch_seconds in _EPOCH_SECONDS.items():
        lengths = trial_lengths(_SIMULATED_TRIALS, epoch_seconds)
        for workers in _SIMULATED_WORKERS:
            best = makespan(lengths, workers, len(lengths))
            values = [factor * workers for factor in _SIMULATED_FACTORS]
            shares = {str(value): best / makespan(lengths, workers, value) for value in values}
            figures.setdefault(kind, {})[str(workers)] = shares
    return figures


def trial_lengths(count: int, epoch_seconds: Sequence[float]) -> list[float]:
    """Return random durations of search trials with the default search space and pruner, in seconds.

    The quantile pruner continues the fraction ``0.4 (10 / epoch)^2`` of the trials after epochs 10 to 30. So 60 % of
    the trials end after 10 epochs and 90 % after 20. The mean is 13, near that of real curves: early stopping leaves
    69 % of the 30 epochs, and pruning saves 42 % of those. Each trial has one of the speeds in `epoch_seconds`.
    """
    generator = random.Random(0)
    epochs = [min(30, max(10, math.ceil(10 * math.sqrt(0.4 / (1 - generator.random()))))) for _ in range(count)]
    return [number * generator.choice(epoch_seconds) for number in epochs]


def compared(searches: dict[int, Figures]) -> dict[int, Figures]:
    """Return the searches, keyed by parallelism, with their durations relative to that with the largest parallelism.

    The simulated figures use the durations of the search's own trials, so other processes hardly change them.

    Raises:
        HarnessError: The searches differ in the parameters or values of their trials.
    """
    no_window = max(searches)
    figures = {}
    for value, found in searches.items():
        if found["trained"] != searches[no_window]["trained"]:
            raise HarnessError(
                f"parallelism {value} gave other trials than {no_window}; expected equal parameters and values; "
                "find the cause before comparing durations"
            )
        lengths = found["trial_seconds"]
        simulated_s, share = makespan(lengths, _WORKERS, value), sum(lengths) / _WORKERS
        figures[value] = {
            "seconds": found["seconds"],
            "ratio": found["seconds"] / searches[no_window]["seconds"],
            "simulated_ratio": simulated_s / makespan(lengths, _WORKERS, no_window),
            "idle_share": 1 - share / found["seconds"],
            "simulated_idle_share": 1 - share / simulated_s,
        }
    return figures


def _search(plan: Plan, metadata: Path, seed: int, parallelism: int, trials: int) -> Figures:
    """Run a search of two workers; return its duration, and the durations, parameters and values of its trials."""
    plan.log(f"parallelism {parallelism}, {trials} trials, seed {seed}")
    work_dir = plan.folder / "parallelism"
    work_dir.mkdir()
    for name, text in (("models.yaml", _MODELS), ("space.yaml", _SPACE)):
        (work_dir / name).write_text(text, encoding="utf-8")
    models = str(work_dir / "models.yaml")
    config = TrainingConfig(
        model_config_path=models,
        metadata_path=str(metadata),
        seed=seed,
        num_epochs=_QUICK_EPOCHS if plan.quick else _EPOCHS,
        early_stopping_patience=3,
    )
    write_experiments(work_dir / "experiments.yaml", {"base": config})
    arguments = ["search", "--config", "experiments.yaml", "--space", "space.yaml", "--trials", str(trials)]
    arguments += ["--sampler", "random", "--pruner", "none", "--device", "cpu", "--parallelism", str(parallelism)]
    arguments += ["--workers", str(_WORKERS), "--threads", "1", "--output-dir", "out", "--results-file", "results.json"]
    seconds_of(command(*arguments), work_dir, _WORKERS)
    finished = load_study(work_dir / "out")[0].get_trials(deepcopy=False)
    shutil.rmtree(work_dir)
    times = [(trial.datetime_start, trial.datetime_complete) for trial in finished]
    started, ended = [start for start, _ in times if start], [end for _, end in times if end]
    return {
        "seconds": (max(ended) - min(started)).total_seconds(),
        "trial_seconds": [(end - start).total_seconds() for start, end in zip(started, ended, strict=True)],
        "trained": [(trial.params, trial.value) for trial in finished],
    }
