#!/usr/bin/env python3
"""Measures what pruning saves and costs, and what a search gains over the presets, on a hard and small dataset.

For each seed it trains the presets and so many search trials, with and without pruning, each study in a process of its
own with one thread. Repeating it goes on where it stopped.

Example: python scripts/measure_search.py --seeds 0 1 2 --trials 24 --jobs 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
# The documented presets on narrower networks, for as many epochs as all trials.
EXPERIMENTS = """\
common: &common
  data: {metadata_path: data/metadata.yaml, augmentation: false}
  early_stopping: {patience: 8, min_delta: 0.001}
experiments:
  conservative_small:
    <<: *common
    model: {name: small, config_path: models.yaml}
    training: {batch_size: 32, learning_rate: 0.001, num_epochs: 24, device: cpu, use_tensorboard: false}
    optimizer: {type: adam}
    scheduler: {type: plateau, patience: 5}
  baseline_optimized:
    <<: *common
    model: {name: medium, config_path: models.yaml}
    training: {batch_size: 64, learning_rate: 0.002, num_epochs: 24, device: cpu, use_tensorboard: false}
    optimizer: {type: adamw}
    scheduler: {type: cosine, warmup_epochs: 3}
  high_learning_rate:
    <<: *common
    model: {name: medium, config_path: models.yaml}
    training: {batch_size: 96, learning_rate: 0.003, num_epochs: 24, device: cpu, use_tensorboard: false}
    optimizer: {type: adam}
    scheduler: {type: steplr, step_size: 8}
"""
SPACE = """\
base: {num_epochs: 24}
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
MIN_DELTA = 0.001  # as in the experiments
ORDERS = 100


@dataclass(frozen=True)
class Trial:
    """What a search trial came to: best so far at each epoch, and whether it was pruned."""

    curve: tuple[float, ...]
    pruned: bool


@dataclass(frozen=True)
class Study:
    """What one study came to: its presets' and its search trials' curves, and accuracies on the test split."""

    seed: int
    pruner: str
    presets: tuple[Trial, ...]
    searched: tuple[Trial, ...]
    test_best_preset: tuple[float, float]
    test_best: tuple[float, float]

    @property
    def epochs(self) -> int:
        """Epochs of the search trials."""
        return sum(len(trial.curve) for trial in self.searched)

    @property
    def best(self) -> float:
        """The best value of the study, its presets included."""
        return max(trial.curve[-1] for trial in (*self.presets, *self.searched) if trial.curve and not trial.pruned)


def main() -> int:
    """Run all studies and print the tables."""
    options = parsed()
    os.makedirs(options.work_dir, exist_ok=True)
    os.chdir(options.work_dir)
    prepare(options.epochs)
    jobs = [(seed, pruner) for seed in options.seeds for pruner in options.pruners]
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in [pool.submit(run, seed, pruner, options) for seed, pruner in jobs]:
            done.result()
    studies = [read(seed, pruner) for seed, pruner in jobs]
    print_pruning(studies)
    print_gain(studies)
    print_replay([study for study in studies if study.pruner == "none"])
    return 0


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", default="search_measurement", help="where all is kept (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a study for each (default: 0 1 2)")
    parser.add_argument("--trials", type=int, default=24, help="search trials of a study (default: %(default)s)")
    parser.add_argument("--pruners", nargs="+", default=["none", "quantile"], help="(default: none quantile)")
    parser.add_argument("--epochs", type=int, default=24, help="epochs of a trial (default: %(default)s)")
    parser.add_argument("--sampler", default="tpe", help="(default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="studies side by side (default: %(default)s)")
    return parser.parse_args()


def prepare(epochs: int) -> None:
    """Write the configuration and draw the dataset, if that is still to do."""
    for name, text in (("models.yaml", MODELS), ("experiments.yaml", EXPERIMENTS), ("space.yaml", SPACE)):
        Path(name).write_text(text.replace("num_epochs: 24", f"num_epochs: {epochs}"))
    if not Path("data/metadata.yaml").exists():
        generate_dataset(Path("data"), samples=SAMPLES, test_samples=TEST_SAMPLES)


def khmer_tuner(*words: str) -> str:
    """Run a command in one thread; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"khmer-tuner {' '.join(words)}\n{done.stderr}")
    return done.stdout


def folder(seed: int, pruner: str) -> str:
    """Return a study's folder."""
    return f"{pruner}_seed{seed}"


def run(seed: int, pruner: str, options: argparse.Namespace) -> None:
    """Train one study to its end."""
    words = ["run", "--config", "experiments.yaml", "--space", "space.yaml", "--trials", str(options.trials)]
    words += ["--seed", str(seed), "--pruner", pruner, "--sampler", options.sampler]
    khmer_tuner(*words, "--output-dir", folder(seed, pruner), "--results-file", f"{folder(seed, pruner)}.json")
    print(f"done: {folder(seed, pruner)}", file=sys.stderr, flush=True)


def read(seed: int, pruner: str) -> Study:
    """Read a finished study, and score its best preset and its best trial on the test split."""
    study, output = load_study(folder(seed, pruner))
    trials = {True: [], False: []}
    for trial in study.get_trials(deepcopy=False):
        curve = tuple(value for _, value in sorted(trial.intermediate_values.items()))
        trials[read_record(trial).kind is TrialKind.PRESET].append(Trial(curve, trial.state.name == "PRUNED"))
    whole = [record for record in ended_records(study) if record.outcome and record.outcome.why_ended != "pruned"]

    def best_of(kind: TrialKind | None) -> tuple[float, float]:
        record = max(
            (record for record in whole if kind in (None, record.kind)),
            key=lambda record: (record.outcome.best_val_char_accuracy, record.outcome.best_val_seq_accuracy),
        )
        checkpoint = output.trial_dir(record.experiment_name) / "checkpoints" / "best.pt"
        words = ["evaluate", "--metadata", "data/metadata.yaml", "--split", "test", "--checkpoint", str(checkpoint)]
        scores = json.loads(khmer_tuner(*words, "--json"))
        return scores["char_accuracy"], scores["seq_accuracy"]

    presets, searched = tuple(trials[True]), tuple(trials[False])
    return Study(seed, pruner, presets, searched, best_of(TrialKind.PRESET), best_of(None))


def print_pruning(studies: Sequence[Study]) -> None:
    """Print epochs saved and value lost against the same seed without pruning."""
    whole = {study.seed: study for study in studies if study.pruner == "none"}
    print("\nseed  pruner     epochs   saved  pruned  best val char     lost")
    for study in studies:
        reference = whole.get(study.seed)
        saved = "" if reference is None else f"{1 - study.epochs / reference.epochs:7.1%}"
        lost = "" if reference is None else f"{reference.best - study.best:+9.4f}"
        pruned = sum(trial.pruned for trial in study.searched)
        print(f"{study.seed:4}  {study.pruner:9} {study.epochs:7} {saved:>7} {pruned:7} {study.best:14.4f} {lost}")


def print_gain(studies: Sequence[Study]) -> None:
    """Print what the search gains over the best preset on the split that nothing ever looked at."""
    print("\nseed  pruner     test char/seq: best preset    best of all      gain char / seq")
    gains: dict[str, list[tuple[float, float]]] = {}
    for study in studies:
        before, after = study.test_best_preset, study.test_best
        gain = (after[0] - before[0], after[1] - before[1])
        gains.setdefault(study.pruner, []).append(gain)
        figures = f"{before[0]:.4f} / {before[1]:.4f}  {after[0]:.4f} / {after[1]:.4f}"
        print(f"{study.seed:4}  {study.pruner:9}             {figures}   {gain[0]:+.4f} / {gain[1]:+.4f}")
    for pruner, pairs in gains.items():
        means = [statistics.mean(pair[part] for pair in pairs) for part in (0, 1)]
        spreads = [statistics.stdev(pair[part] for pair in pairs) if len(pairs) > 1 else 0.0 for part in (0, 1)]
        told = " / ".join(f"{mean:+.4f} (sd {spread:.4f})" for mean, spread in zip(means, spreads, strict=True))
        print(f"mean  {pruner:9} {told}")


Rule = Callable[[list[list[float]], int, float], bool]


def quantile_rule(share: float, grace: int, power: float) -> Rule:
    """Return the rule of this program (power 2), or one whose share grows more slowly (0: not at all)."""

    def rule(others: list[list[float]], epoch: int, value: float) -> bool:
        if epoch < grace or not others:
            return False
        reached = sorted(curve[min(epoch, len(curve)) - 1] for curve in others)
        position = (1 - (1 - share) * (grace / epoch) ** power) * (len(reached) - 1)
        below = int(position)
        above = min(below + 1, len(reached) - 1)
        return value + MIN_DELTA < reached[below] + (reached[above] - reached[below]) * (position - below)

    return rule


def print_replay(studies: Sequence[Study]) -> None:
    """Print what rules would have done to the trials of the studies without pruning, in many orders of the trials."""
    if not studies:
        return
    print(f"\nreplayed on the trials without pruning, each study in {ORDERS} orders:")
    print("grace  share  power   saved    lost  lost > 0.002 in  most lost")
    for grace, share, power in itertools.product((6, 8, 10), (0.5, 0.6, 0.75), (0, 1, 2)):
        ends = [end for study in studies for end in replays(study, quantile_rule(share, grace, power))]
        saved, lost = zip(*ends, strict=True)
        often = sum(value > 0.002 for value in lost) / len(lost)
        figures = f"{statistics.mean(saved):7.1%} {statistics.mean(lost):7.4f} {often:15.1%} {max(lost):10.4f}"
        print(f"{grace:5} {share:6} {power:6} {figures}")


def replays(study: Study, rule: Rule) -> Iterator[tuple[float, float]]:
    """Yield the share of epochs that a rule saves and the best value that it loses, for each order of the trials."""
    chance = random.Random(study.seed)
    searched = list(study.searched)
    for _ in range(ORDERS):
        yield replayed(study, searched, rule)
        chance.shuffle(searched)


def replayed(study: Study, searched: Sequence[Trial], rule: Rule) -> tuple[float, float]:
    """Return the share of epochs that a rule saves and the best value that it loses, for one order of the trials."""
    others = [list(trial.curve) for trial in study.presets]
    best = max(curve[-1] for curve in others)
    epochs = 0
    for trial in searched:
        ends = (epoch for epoch in range(1, len(trial.curve)) if rule(others, epoch, trial.curve[epoch - 1]))
        end = next(ends, len(trial.curve))
        epochs += end
        if trial.curve:
            others.append(list(trial.curve[:end]))
        if end == len(trial.curve) and trial.curve:
            best = max(best, trial.curve[-1])
    return 1 - epochs / study.epochs, study.best - best


if __name__ == "__main__":
    sys.exit(main())
