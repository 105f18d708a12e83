"""A search with ``khmer-tuner run``, and the trials of its study."""

from __future__ import annotations

from pathlib import Path

from harness.processes import run_tuner
from harness.run import HarnessError

from search_comparison.tasks import EXPERIMENTS_FILE, SPACE_FILE
from search_comparison.trainings import TrialResult
from search_spaces import config_digest, load_experiments
from studies import TrialRecord, ended_records, load_study
from tuner.training.history import read_metrics


def search_with_khmer_tuner(folder: Path, seed: int, budget: int, options: list[str]) -> list[TrialResult]:
    """Search until the budget is used up; return the trials up to there.

    The command's budget is a number of trials, so it is repeated with more of them, at most one of which exceeds the
    budget of epochs.

    Args:
        folder: The study's output folder.
        seed: Seed of the study.
        budget: Number of epochs.
        options: Further options of ``khmer-tuner run``.
    """
    presets = load_experiments(EXPERIMENTS_FILE).experiments.values()
    longest = max(preset.num_epochs for preset in presets)
    arguments = ["run", "--config", EXPERIMENTS_FILE, "--space", SPACE_FILE, "--output-dir", str(folder)]
    arguments += ["--seed", str(seed), "--results-file", f"{folder}.json", *options]
    trials, results = 0, list[TrialResult]()
    left = budget - longest * len(presets)
    while left > 0 and trials < budget:  # trials that diverge in their first epoch cost no epochs
        trials += max(1, left // longest)
        done = run_tuner(Path.cwd(), *arguments, "--trials", str(trials), timeout_s=None)
        if done.returncode != 0:
            raise HarnessError(f"khmer-tuner {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr}")
        results = _read(folder)
        left = budget - sum(len(result.values) for result in results)
    return cut(results, budget)


def _read(folder: Path) -> list[TrialResult]:
    study, output = load_study(folder)
    records = sorted(ended_records(study), key=lambda record: record.number)
    return [_result(record, output.trial_dir(record.experiment_name)) for record in records]


def _result(record: TrialRecord, folder: Path) -> TrialResult:
    outcome = record.outcome
    assert outcome is not None, f"{record.experiment_name} has ended"
    values = [metrics.value(record.training_config.early_stopping_monitor) for metrics in read_metrics(folder)]
    test = outcome.unseen_char_accuracy, outcome.unseen_seq_accuracy
    digest = config_digest(record.training_config)
    return TrialResult(digest, values, max(values, default=0.0), *test, str(outcome.why_ended))


def cut(results: list[TrialResult], budget: int) -> list[TrialResult]:
    """Return the results with at most `budget` epochs; the last trial may be cut, as for the other competitors."""
    kept = []
    for result in results:
        if len(result.values) > budget:
            values = result.values[:budget]
            kept.append(TrialResult(result.digest, values, max(values, default=0.0)))
            break
        kept.append(result)
        budget -= len(result.values)
    return kept
