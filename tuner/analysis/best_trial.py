"""Finding the best trial of a study, without importing PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from search_spaces import ConfigurationError, Targets
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialOutcome,
    TrialRecord,
    best_records,
    ended_records,
    study_invariants,
    study_status,
    study_targets,
)
from tuner.training.history import EpochMetrics, best_checkpoint_path, read_metrics

_UNITS = {"latency_ms": "ms per image", "parameters": "parameters"}


@dataclass(frozen=True)
class Winner:
    """The best completed trial of a study, or of its trials within limits.

    The results file names the same trial: the completed trial with the highest validation character accuracy. Ties are
    resolved by the highest validation sequence accuracy, then by the lowest trial number. Pruned trials are ignored.

    Attributes:
        study: The study's name.
        folder: The study's output folder.
        invariants: The fixed settings of the study.
        targets: The study's targets.
        record: The trial.
        why: Why the trial is the winner, as text.
        leader: The name of a trial within the limits with a better value of the monitored metric; None if no trial has.
    """

    study: str
    folder: OutputFolder
    invariants: StudyInvariants
    targets: Targets
    record: TrialRecord
    why: str
    leader: str | None

    @property
    def name(self) -> str:
        """The name of the experiment or search trial."""
        return self.record.experiment_name

    @property
    def outcome(self) -> TrialOutcome:
        """The outcome of the trial."""
        assert self.record.outcome is not None, f"trial {self.record.number} has completed, but has no outcome"
        return self.record.outcome

    @property
    def checkpoint(self) -> Path:
        """The path of the trial's best checkpoint; the file may be missing."""
        return best_checkpoint_path(self.folder.trial_dir(self.name))

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """The metrics of the trial's best epoch; None if the trial's files are missing."""
        epochs = read_metrics(self.folder.trial_dir(self.name))
        return next((epoch for epoch in epochs if epoch.epoch == self.outcome.best_epoch), None)


def find_winner(
    study: optuna.Study, folder: OutputFolder, *, latency_ms: float | None = None, parameters: int | None = None
) -> Winner:
    """Return the best completed trial of a study.

    `latency_ms` and `parameters` are the highest accepted values; None for no limit. Unknown values are not accepted.

    Raises:
        ConfigurationError: No trial of the study has completed, or none is within the limits.
    """
    completed = best_records(ended_records(study))
    if not completed:
        raise ConfigurationError(
            f"output folder {folder.path}: no trial of the study has completed yet, so there is no best trial; "
            "run `khmer-tuner status` to see the progress"
        )
    limits = {"latency_ms": latency_ms, "parameters": parameters}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    ranked = [record for record in completed if all(_value(record, name) <= given[name] for name in given)]
    maxima = " and ".join(f"at most {limit:,.10g} {_UNITS[name]}" for name, limit in given.items())
    within = f" with {maxima}" if maxima else ""
    if not ranked:
        lowest = "; ".join(_lowest(completed, name) for name in given)
        remedy = "use higher limits or none, or search among smaller models"
        raise ConfigurationError(f"output folder {folder.path}: found no completed trial{within}; {lowest}; {remedy}")
    best_of = f"the highest validation character accuracy of {len(ranked)} completed trials"
    status, numbers = study_status(study, folder), {record.number for record in ranked}
    status = replace(status, rows=tuple(row for row in status.rows if row.number in numbers))
    leader = status.leader_over(ranked[0].experiment_name)
    return Winner(
        study=study.study_name,
        folder=folder,
        invariants=study_invariants(study),
        targets=study_targets(study),
        record=ranked[0],
        why=(best_of if len(ranked) > 1 else "the only completed trial") + within,
        leader=None if leader is None else leader.name,
    )


def _value(record: TrialRecord, name: str) -> float:
    return getattr(record.outcome, name) or math.inf  # unknown


def _lowest(records: Sequence[TrialRecord], name: str) -> str:
    """Describe the lowest known value of a property, rounded up so that it can be used as a limit."""
    lowest = min(records, key=lambda record: _value(record, name))
    if (value := _value(lowest, name)) == math.inf:
        return f"no trial has a measurement of its {_UNITS[name]}"
    return f"the lowest is {math.ceil(value * 1000) / 1000:,.10g} {_UNITS[name]} ({lowest.experiment_name})"


def best_checkpoint(study: optuna.Study, folder: OutputFolder) -> Path:
    """Return the checkpoint of a study's best completed trial.

    Raises:
        ConfigurationError: No trial of the study has completed, or the checkpoint is missing.
    """
    return existing_checkpoint(find_winner(study, folder).record, folder)


def existing_checkpoint(record: TrialRecord, folder: OutputFolder) -> Path:
    """Return the best checkpoint of a trial; raise ConfigurationError if it is missing."""
    checkpoint = best_checkpoint_path(folder.trial_dir(record.experiment_name))
    if not checkpoint.is_file():
        raise ConfigurationError(
            f"checkpoint {checkpoint}: the best checkpoint of trial {record.experiment_name!r} (number "
            f"{record.number}, {record.phase.value}) is missing; restore it, use another trial, or train this one to "
            "its end"
        )
    return checkpoint


def winner_lines(winner: Winner) -> list[str]:
    """Format the description of a winner, one line per property."""
    outcome, config = winner.outcome, winner.record.training_config
    ended = f"{outcome.why_ended.text} after {outcome.total_epochs} of {config.num_epochs} epochs"
    lines = [
        f"trial       {winner.name} (number {winner.record.number}), {ended}",
        f"why best    {winner.why}",
        f"validation  {_metrics_text(winner)}",
    ]
    if outcome.unseen_text:
        lines.append(f"unseen      {outcome.unseen_text} (designs that are in no other split)")
    if outcome.size_and_speed_text:
        lines.append(f"size        {outcome.size_and_speed_text}")
    if winner.leader is not None:
        lines.append(f"            {winner.leader} has a better {winner.invariants.monitor}, the monitored metric")
    missing = "" if winner.checkpoint.is_file() else " (missing)"
    return [
        *lines,
        f"checkpoint  {winner.checkpoint}{missing}",
        f"study       {winner.study} in {winner.folder.path}",
        f"versions    {', '.join(f'{name} {version}' for name, version in winner.invariants.versions.items())}",
    ]


def _metrics_text(winner: Winner) -> str:
    """Format the metrics of the winner's best epoch.

    Without the trial's metrics file, the highest accuracies of all epochs are shown instead.
    """
    epoch = winner.best_epoch
    if epoch is None:
        return f"char {winner.outcome.best_val_char_accuracy:.4f}, seq {winner.outcome.best_val_seq_accuracy:.4f}"
    accuracies = f"char {epoch.val_char_accuracy:.4f}, seq {epoch.val_seq_accuracy:.4f}"
    return f"{accuracies}, loss {epoch.val_loss:.4f} (epoch {epoch.epoch})"
