"""Real trainings that are charged to the epoch budget of one search."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from search_comparison.tasks import Problem
from search_spaces import TrainingConfig, config_digest
from tuner.data.batches import TrainingData
from tuner.training.device import setup_training_environment
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics
from tuner.training.loop import train

KeepsGoing = Callable[[int, float], bool]


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
        why_ended: As in the product; ``budget`` if the budget ended the trial.
    """

    digest: str
    values: list[float] = field(default_factory=list)
    best: float = 0.0
    test_char: float | None = None
    test_seq: float | None = None
    why_ended: str = "budget"


class Trainings:
    """The trainings of one search.

    Training is deterministic, and a training that is repeated in its folder continues after its last epoch. So a search
    that is repeated after an interruption samples and trains the same trials without training an epoch twice.

    Attributes:
        problem: The problem.
        folder: Folder of the trainings.
        budget: Number of epochs that the search may train.
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

    def run(self, config: TrainingConfig, keeps_going: KeepsGoing = lambda epoch, value: True) -> TrialResult:
        """Train a configuration until it ends or `keeps_going`, called after each epoch, returns False.

        Epochs that this search has trained before are read from disk and not charged again.

        Raises:
            BudgetSpentError: The budget was used up during the trial.
        """
        result = TrialResult(config_digest(config))
        self.results.append(result)
        epochs, is_stopped = 0, False

        def epoch_ended(epoch: int, value: float) -> None:
            nonlocal epochs, is_stopped
            if epoch > epochs and not is_stopped:
                epochs = epoch
                self._charge(result, epoch, value)
                is_stopped = not keeps_going(epoch, value)

        if finished := self._finished.get(result.digest):
            for epoch, value in enumerate(finished.values, start=1):
                epoch_ended(epoch, value)
            if not is_stopped:
                result.test_char, result.test_seq = finished.test_char, finished.test_seq
                result.why_ended = finished.why_ended
                return result

        def on_epoch_end(metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
            epoch_ended(metrics.epoch, metrics.value(config.early_stopping_monitor))

        folder = self.folder / result.digest
        folder.mkdir(parents=True, exist_ok=True)
        device, _ = setup_training_environment(config)
        data = TrainingData.of(config, self.problem.cache, device)
        done = train(
            config,
            data,
            folder,
            on_epoch_end=on_epoch_end,
            should_prune=lambda epoch: is_stopped and epoch >= epochs,
        )
        result.test_char, result.test_seq = done.unseen or (None, None)
        result.why_ended = done.why_ended
        return result

    def _charge(self, result: TrialResult, epoch: int, value: float) -> None:
        if epoch > self._charged.get(result.digest, 0):
            if sum(self._charged.values()) >= self.budget:
                raise BudgetSpentError
            self._charged[result.digest] = epoch
            result.values.append(value)
        result.best = max(result.best, value)


def save_results(results: list[TrialResult], path: Path) -> None:
    """Write the results of a search as JSON; the file is complete or missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps([asdict(result) for result in results]))
    unfinished.rename(path)


def load_results(path: Path) -> list[TrialResult]:
    """Read the results of a search."""
    return [TrialResult(**data) for data in json.loads(path.read_text())]
