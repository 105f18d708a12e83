"""Real trainings that are charged to the epoch budget of one search."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from search_comparison.tasks import Problem
from search_spaces import TrainingConfig, config_digest
from search_spaces.diagnostics.disk import write_json
from tuner.data.batches import TrainingData
from tuner.training.device import setup_training_environment
from tuner.training.history import EarlyStopping, EpochMetrics, read_metrics
from tuner.training.loop import train

ShouldContinue = Callable[[int, float], bool]


class BudgetSpentError(Exception):
    """The epoch budget of the search is used up."""


@dataclass
class TrialResult:
    """One trial, or one part of a trial that was paused and continued.

    Attributes:
        digest: Digest of the configuration.
        values: Validation accuracy after each epoch that was charged to the budget.
        best: Best validation accuracy of the trial, 0 to 1; 0 if no epoch finished.
        test_char: Character accuracy of the best epoch on the test images; None if the budget ended the trial.
        test_seq: Sequence accuracy on the same images.
        why_ended: As in the product; ``pruned`` also for a paused trial, ``budget`` if the budget ended the trial.
    """

    digest: str
    values: list[float] = field(default_factory=list)
    best: float = 0.0
    test_char: float | None = None
    test_seq: float | None = None
    why_ended: str = "budget"

    def end(self, why_ended: str, test: tuple[float, float] | None) -> None:
        """Store how the trial or its part ended, and its character and sequence accuracy on the test images."""
        self.why_ended = why_ended
        self.test_char, self.test_seq = test or (None, None)


class Trainings:
    """The trainings of one search.

    Training is deterministic, the end of each trial is stored, and a training that is repeated in its folder continues
    after its last epoch. So a search that is repeated after an interruption samples and trains the same trials without
    training an epoch twice.

    Attributes:
        problem: The problem.
        folder: Folder of the trainings.
        budget: Number of epochs that the search may train, and the maximum number of trials.
        results: The trials in the order of training.
    """

    def __init__(self, problem: Problem, folder: Path, budget: int, finished: Iterable[TrialResult] = ()) -> None:
        """Open the trainings of a search.

        Args:
            problem: The problem.
            folder: Folder for the trainings of this search.
            budget: Number of epochs that the search may train.
            finished: Whole trainings of an earlier search, which are charged to the budget but not trained again.
        """
        self.results: list[TrialResult] = []
        self.problem = problem
        self.folder = folder
        self.budget = budget
        self._charged: dict[str, int] = {}
        self._finished = {result.digest: result for result in finished}

    def run(self, config: TrainingConfig, should_continue: ShouldContinue = lambda epoch, value: True) -> TrialResult:
        """Train a configuration until it ends or `should_continue`, called after each epoch, returns False.

        Epochs that this search has trained before are read from disk and not charged again. A finished training that
        is now pruned is trained again, without charge, to score its best epoch up to there on the test images.

        Raises:
            BudgetSpentError: The budget was used up during the trial.
        """
        if len(self.results) >= self.budget:  # trials that diverge in their first epoch cost no epochs
            raise BudgetSpentError
        result = TrialResult(config_digest(config))
        self.results.append(result)
        folder, finished = self.folder / result.digest, self._finished.get(result.digest)
        epochs = _Epochs(self._charge, result, should_continue)
        for epoch, value in enumerate(finished.values if finished else _stored_values(config, folder), start=1):
            epochs.ended(epoch, value)
        if finished and not epochs.is_stopped:
            result.end(finished.why_ended, _pair(finished.test_char, finished.test_seq))
            return result
        end = _stored_end(folder, epochs)
        result.end(*(end or self._train(config, folder, epochs)))
        return result

    def _train(self, config: TrainingConfig, folder: Path, epochs: _Epochs) -> tuple[str, tuple[float, float] | None]:
        """Train to the end of the trial or of its part; store and return why it ended, and the test accuracies."""

        def on_epoch_end(metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
            epochs.ended(metrics.epoch, metrics.value(config.early_stopping_monitor))

        folder.mkdir(parents=True, exist_ok=True)
        device, _ = setup_training_environment(config)
        done = train(
            config,
            TrainingData.of(config, self.problem.cache, device),
            folder,
            on_epoch_end=on_epoch_end,
            should_prune=lambda epoch: epochs.is_stopped and epoch >= epochs.count,
        )
        end = done.why_ended, _pair(done.best.unseen_char_accuracy, done.best.unseen_seq_accuracy)
        write_json(_end_path(folder, epochs), end)
        return end

    def _charge(self, result: TrialResult, epoch: int, value: float) -> None:
        if epoch > self._charged.get(result.digest, 0):
            if sum(self._charged.values()) >= self.budget:
                raise BudgetSpentError
            self._charged[result.digest] = epoch
            result.values.append(value)
        result.best = max(result.best, value)


@dataclass
class _Epochs:
    """The epochs of a trial so far, each of which is charged once, and whether they were enough.

    Attributes:
        charge: Called with the result, the epoch and its value.
        result: The trial's result.
        should_continue: Called with the epoch and its value; returns whether to train another epoch.
        count: Number of epochs.
        is_stopped: Whether `should_continue` has returned False; later epochs are ignored.
    """

    charge: Callable[[TrialResult, int, float], None]
    result: TrialResult
    should_continue: ShouldContinue
    count: int = 0
    is_stopped: bool = False

    def ended(self, epoch: int, value: float) -> None:
        if epoch > self.count and not self.is_stopped:
            self.count = epoch
            self.charge(self.result, epoch, value)
            self.is_stopped = not self.should_continue(epoch, value)


def _stored_values(config: TrainingConfig, folder: Path) -> list[float]:
    return [metrics.value(config.early_stopping_monitor) for metrics in read_metrics(folder)]


def _end_path(folder: Path, epochs: _Epochs) -> Path:
    return folder / f"ended_after_{epochs.count}.json"


def _stored_end(folder: Path, epochs: _Epochs) -> tuple[str, tuple[float, float] | None] | None:
    """Return how a trial or its part ended after these epochs; None if it did not, or now continues."""
    path = _end_path(folder, epochs)
    if not path.exists():
        return None
    why_ended, test = json.loads(path.read_text())
    return None if why_ended == "pruned" and not epochs.is_stopped else (why_ended, test)


def _pair(char: float | None, seq: float | None) -> tuple[float, float] | None:
    return None if char is None or seq is None else (char, seq)


def save_results(results: list[TrialResult], path: Path) -> None:
    """Write the results of a search as JSON; the file is complete or missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(result) for result in results])


def load_results(path: Path) -> list[TrialResult]:
    """Read the results of a search."""
    return [TrialResult(**data) for data in json.loads(path.read_text())]
