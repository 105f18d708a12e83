"""The winner of a study; no PyTorch is needed to find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search_spaces import ConfigurationError, Targets
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialOutcome,
    TrialRecord,
    best_records,
    ended_records,
    load_study,
    study_invariants,
    study_status,
    study_targets,
)
from tuner.training.history import EpochMetrics, read_metrics


@dataclass(frozen=True)
class Winner:
    """The best completed trial of a study.

    The best trial is that of the results file: the highest validation character accuracy, then sequence accuracy,
    then the lower number; pruned trials do not count.

    Attributes:
        study: The study's name.
        folder: Its output folder.
        invariants: What all trials of the study have in common.
        targets: What they should reach.
        record: The trial.
        completed: How many trials it is the best of.
        leader: Another trial, which is better by the metric that the study goes by; None if none is.
    """

    study: str
    folder: OutputFolder
    invariants: StudyInvariants
    targets: Targets
    record: TrialRecord
    completed: int
    leader: str | None

    @property
    def name(self) -> str:
        """The experiment's or search trial's name."""
        return self.record.experiment_name

    @property
    def outcome(self) -> TrialOutcome:
        """How the trial ended."""
        assert self.record.outcome is not None, "a completed trial has an outcome"
        return self.record.outcome

    @property
    def checkpoint(self) -> Path:
        """Its checkpoint; the file may be gone."""
        return self.folder.trial_dir(self.name) / "checkpoints" / "best.pt"

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """The figures of the epoch that the checkpoint is of; None if the trial's files are gone."""
        epochs = read_metrics(self.folder.trial_dir(self.name))
        return next((epoch for epoch in epochs if epoch.epoch == self.outcome.best_epoch), None)

    @property
    def why(self) -> str:
        """What makes it the winner, in words."""
        if self.completed == 1:
            return "the only trial that has completed"
        return f"the highest validation character accuracy of {self.completed} completed trials"


def find_winner(output_dir: Path, *, storage: str | None = None, study_name: str | None = None) -> Winner:
    """Return the best completed trial of a study.

    Args:
        output_dir: The study's output folder; it is only read.
        storage: The study's storage URL, needed only to add a password.
        study_name: The study's name, needed only to make sure.

    Raises:
        ConfigurationError: There is no study, or no trial of it has completed.
    """
    study, folder = load_study(output_dir, storage_url=storage, name=study_name)
    ranked = best_records(ended_records(study))
    if not ranked:
        raise ConfigurationError(
            f"output folder {folder.path}: no trial of its study has completed yet, so there is no best one; "
            "`khmer-tuner status` shows how far they are"
        )
    leader = study_status(study, folder).leader_over(ranked[0].number)
    return Winner(
        study=study.study_name,
        folder=folder,
        invariants=study_invariants(study),
        targets=study_targets(study),
        record=ranked[0],
        completed=len(ranked),
        leader=None if leader is None else leader.name,
    )


def best_checkpoint(
    output_dir: Path, *, storage: str | None = None, study_name: str | None = None
) -> tuple[Path, TrialRecord]:
    """Return the checkpoint of a study's best completed trial, and what the study knows of that trial.

    Args:
        output_dir: As `find_winner`.
        storage: As `find_winner`.
        study_name: As `find_winner`.

    Raises:
        ConfigurationError: As `find_winner`, or the checkpoint is gone.
    """
    winner = find_winner(output_dir, storage=storage, study_name=study_name)
    if not winner.checkpoint.is_file():
        raise ConfigurationError(
            f"checkpoint {winner.checkpoint}: the file of the best trial, {winner.name!r} "
            f"(number {winner.record.number}), is gone; put it back, or name the checkpoint of another trial"
        )
    return winner.checkpoint, winner.record


def winner_lines(winner: Winner) -> list[str]:
    """Return what there is to say of a winner, a line for each thing."""
    outcome, config = winner.outcome, winner.record.training_config
    ended = f"{outcome.why_ended.value.replace('_', ' ')} after {outcome.total_epochs} of {config.num_epochs} epochs"
    lines = [
        f"trial       {winner.name} (number {winner.record.number}), {ended}",
        f"best by     {winner.why}",
        f"validation  {_figures(winner)}",
    ]
    if winner.leader is not None:
        lines.append(f"            by {winner.invariants.monitor}, which the study goes by, {winner.leader} is better")
    gone = "" if winner.checkpoint.is_file() else " (gone)"
    return [
        *lines,
        f"checkpoint  {winner.checkpoint}{gone}",
        f"study       {winner.study} in {winner.folder.path}",
        f"versions    {', '.join(f'{name} {version}' for name, version in winner.invariants.versions.items())}",
    ]


def _figures(winner: Winner) -> str:
    """Return the figures of the winner's checkpoint; the best ones of all epochs if its files are gone."""
    epoch = winner.best_epoch
    if epoch is None:
        return f"char {winner.outcome.best_val_char_accuracy:.4f}, seq {winner.outcome.best_val_seq_accuracy:.4f}"
    accuracies = f"char {epoch.val_char_accuracy:.4f}, seq {epoch.val_seq_accuracy:.4f}"
    return f"{accuracies}, loss {epoch.val_loss:.4f} (epoch {epoch.epoch})"
