#!/usr/bin/env python3
"""Measure what pruning saves and costs, what a search gains over the presets, and what the parallelism costs.

The dataset is small and difficult. For each seed, pruner and parallelism, a study of presets and search trials runs in
a separate process with one thread. Repeating the command resumes the studies.

Examples:
  python scripts/measure_search.py --seeds 0 1 2 --trials 24 --jobs 2
  python scripts/measure_search.py --seeds 0 1 2 3 4 --pruners quantile --parallelism 1 4 8
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from harness.processes import command, environment, python

from search_spaces import Targets, TrainingConfig, experiments_yaml, load_experiments
from studies import TrialKind, ended_records, load_study, read_record
from tuner.data.generation import generate_dataset

MODELS = """\
models:
  small: {decoder: attention, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 64,
          context_layers: 0}
  medium: {decoder: attention, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 64}
  large: {decoder: attention, stem_channels: [4, 16], stage_channels: [32, 32], blocks_per_stage: 0, width: 96}
  ctc: {decoder: ctc, stem_channels: [4, 16], stage_channels: [32], blocks_per_stage: 0, width: 64}
"""
SPACE = """\
space:
  model_name: [small, medium, large, ctc]
  batch_size: {low: 8, high: 64, step: 8}
  learning_rate: {low: 1e-5, high: 3e-2, log: true}
  weight_decay: {low: 1e-6, high: 1e-1, log: true}
  optimizer_type: [adam, adamw]
  loss_type: {choices: [crossentropy, focal], when: {model_name: [small, medium, large]}}
  label_smoothing: {low: 0.0, high: 0.2, when: {loss_type: crossentropy}}
  scheduler_type: [cosine, steplr, plateau]
  warmup_epochs: {low: 0, high: 5, when: {scheduler_type: cosine}}
  step_size: {low: 4, high: 12, when: {scheduler_type: steplr}}
  patience: {low: 2, high: 8, when: {scheduler_type: plateau}}
"""
SAMPLES = 2000
TEST_SAMPLES = 2000


@dataclass(frozen=True)
class Study:
    """Results of one study.

    Attributes:
        seed: Seed of the study.
        pruner: Name of the study's pruner; `none` for a study without pruning.
        parallelism: The study's parallelism.
        epochs: Number of epochs of all search trials in total.
        pruned: Number of pruned search trials.
        best: Best objective value of all trials, on the validation split.
        test_best_preset: Character and sequence accuracy of the best preset on the test split.
        test_best: Character and sequence accuracy of the best trial on the test split.
    """

    seed: int
    pruner: str
    parallelism: int
    epochs: int
    pruned: int
    best: float
    test_best_preset: tuple[float, float]
    test_best: tuple[float, float]


def main() -> int:
    """Run all studies and print the tables."""
    options = parsed()
    os.makedirs(options.work_dir, exist_ok=True)
    os.chdir(options.work_dir)
    prepare(options.epochs)
    jobs = list(itertools.product(options.seeds, options.pruners, options.parallelism))
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in [pool.submit(run, *job, options) for job in jobs]:
            done.result()
    studies = [read(*job) for job in jobs]
    print_pruning(studies)
    print_gain(studies)
    print_parallelism(studies)
    return 0


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", default="search_measurement", help="work folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the studies (default: 0 1 2)")
    parser.add_argument(
        "--trials", type=int, default=24, help="number of search trials per study (default: %(default)s)"
    )
    parser.add_argument(
        "--pruners", nargs="+", default=["none", "quantile"], help="pruners to compare (default: none and quantile)"
    )
    parser.add_argument(
        "--parallelism", type=int, nargs="+", default=[1], help="values of --parallelism to compare (default: 1)"
    )
    parser.add_argument(
        "--epochs", type=int, default=24, help="maximum number of epochs per trial (default: %(default)s)"
    )
    parser.add_argument("--sampler", default="tpe", help="sampler of the search trials (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="number of studies in parallel (default: %(default)s)")
    return parser.parse_args()


def prepare(epochs: int) -> None:
    """Write the configuration, and generate the dataset if it is missing."""
    presets = load_experiments("config/phase3_simple_configs.yaml").experiments
    experiments = {name: on_narrow_network(preset, epochs) for name, preset in presets.items()}
    Path("models.yaml").write_text(MODELS)
    Path("experiments.yaml").write_text(experiments_yaml(experiments, Targets()))
    Path("space.yaml").write_text(f"base: {{num_epochs: {epochs}}}\n{SPACE}")
    if not Path("data/metadata.yaml").exists():
        generate_dataset(Path("data"), samples=SAMPLES, test_samples=TEST_SAMPLES)


def on_narrow_network(preset: TrainingConfig, epochs: int) -> TrainingConfig:
    """Return a documented preset with a narrower network and `epochs` epochs."""
    return replace(
        preset,
        model_config_path="models.yaml",
        metadata_path="data/metadata.yaml",
        augmentation=False,
        num_epochs=epochs,
        device="cpu",
        use_tensorboard=False,
        early_stopping_patience=8,
        early_stopping_min_delta=0.001,
    )


def khmer_tuner(*arguments: str) -> str:
    """Run a ``khmer-tuner`` command with one thread; return its output."""
    line = python(command(*arguments))
    done = subprocess.run(line, env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(
            f"khmer-tuner {' '.join(arguments)} exited with code {done.returncode}; expected 0:\n{done.stderr}"
        )
    return done.stdout


def folder(seed: int, pruner: str, parallelism: int) -> str:
    """Return the folder of a study."""
    return f"{pruner}_parallelism{parallelism}_seed{seed}"


def run(seed: int, pruner: str, parallelism: int, options: argparse.Namespace) -> None:
    """Run or resume a study until all its trials are finished."""
    name = folder(seed, pruner, parallelism)
    arguments = ["run", "--config", "experiments.yaml", "--space", "space.yaml", "--trials", str(options.trials)]
    arguments += ["--seed", str(seed), "--pruner", pruner, "--sampler", options.sampler]
    arguments += ["--parallelism", str(parallelism), "--output-dir", name, "--results-file", f"{name}.json"]
    khmer_tuner(*arguments)
    print(f"complete: {name}", file=sys.stderr, flush=True)


def read(seed: int, pruner: str, parallelism: int) -> Study:
    """Read a finished study, and score its best preset and its best trial on the test split."""
    study, output = load_study(folder(seed, pruner, parallelism))
    trials = study.get_trials(deepcopy=False)
    searched = [trial for trial in trials if read_record(trial).kind is not TrialKind.PRESET]
    ended = [(record, record.outcome) for record in ended_records(study)]
    whole = [(record, outcome) for record, outcome in ended if outcome and outcome.why_ended != "pruned"]

    def best_of(kind: TrialKind | None) -> tuple[float, float]:
        best, _ = max(
            (pair for pair in whole if kind in (None, pair[0].kind)),
            key=lambda pair: (pair[1].best_val_char_accuracy, pair[1].best_val_seq_accuracy),
        )
        checkpoint = output.trial_dir(best.experiment_name) / "checkpoints" / "best.pt"
        arguments = ["evaluate", "--metadata", "data/metadata.yaml", "--split", "test", "--checkpoint", str(checkpoint)]
        scores = json.loads(khmer_tuner(*arguments, "--json"))
        return scores["char_accuracy"], scores["seq_accuracy"]

    return Study(
        seed,
        pruner,
        parallelism,
        epochs=sum(len(trial.intermediate_values) for trial in searched),
        pruned=sum(trial.state.name == "PRUNED" for trial in searched),
        best=study.best_value,
        test_best_preset=best_of(TrialKind.PRESET),
        test_best=best_of(None),
    )


def print_pruning(studies: Sequence[Study]) -> None:
    """Print the saved epochs and the lost best value, compared with the study of the same seed without pruning."""
    whole = {(study.seed, study.parallelism): study for study in studies if study.pruner == "none"}
    print("\nseed  pruner     parallelism  epochs   saved  pruned  best val char     lost")
    for study in studies:
        reference = whole.get((study.seed, study.parallelism))
        saved = "" if reference is None else f"{1 - study.epochs / reference.epochs:7.1%}"
        lost = "" if reference is None else f"{reference.best - study.best:+9.4f}"
        pruned = f"{study.pruned:7} {study.best:14.4f}"
        name = f"{study.seed:4}  {study.pruner:9} {study.parallelism:12}"
        print(f"{name} {study.epochs:7} {saved:>7} {pruned} {lost}")


def print_gain(studies: Sequence[Study]) -> None:
    """Print the gain of the search over the best preset on the test split, which no study has read."""
    print("\nseed  pruner     parallelism  test char/seq: best preset    best of all      gain char / seq")
    gains: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for study in studies:
        before, after = study.test_best_preset, study.test_best
        gain = (after[0] - before[0], after[1] - before[1])
        gains.setdefault((study.pruner, study.parallelism), []).append(gain)
        figures = f"{before[0]:.4f} / {before[1]:.4f}  {after[0]:.4f} / {after[1]:.4f}"
        name = f"{study.seed:4}  {study.pruner:9} {study.parallelism:12}"
        print(f"{name}              {figures}   {gain[0]:+.4f} / {gain[1]:+.4f}")
    for (pruner, parallelism), pairs in gains.items():
        shown = " / ".join(_mean_and_spread([pair[part] for pair in pairs]) for part in (0, 1))
        print(f"mean  {pruner:9} {parallelism:12}  {shown}")


def print_parallelism(studies: Sequence[Study]) -> None:
    """Print the quality per parallelism at the same number of trials: mean and standard deviation over the seeds."""
    groups: dict[tuple[str, int], list[Study]] = {}
    for study in studies:
        groups.setdefault((study.pruner, study.parallelism), []).append(study)
    print("\npruner     parallelism    epochs   best val char           test char               test seq")
    for (pruner, parallelism), group in groups.items():
        figures = [
            _mean_and_spread(values)
            for values in zip(*((study.best, *study.test_best) for study in group), strict=True)
        ]
        epochs = statistics.mean(study.epochs for study in group)
        print(f"{pruner:9} {parallelism:12} {epochs:9.0f}   {'  '.join(figures)}")


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} (sd {spread:.4f})"


if __name__ == "__main__":
    sys.exit(main())
