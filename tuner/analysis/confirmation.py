"""Retraining the best configurations of a study on new seeds, to compare them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from search_spaces import ConfigurationError, TrainingConfig
from studies import TrialKind, TrialPhase, TrialRecord, ended_records
from tuner.analysis.best_trial import fitting_name, preset_config, preset_name
from tuner.analysis.candidates import TEST_SPLIT, Candidates
from tuner.analysis.paired_t_test import Comparison, compare
from tuner.display.events import Display
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.inference.reader import evaluate_split
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.study_setup import with_overrides
from tuner.training.history import best_checkpoint_path
from tuner.workers.run_study import run_request


@dataclass(frozen=True)
class Repetition:
    """One configuration, retrained with one new seed.

    Attributes:
        seed: The seed.
        state: ``completed``, ``failed`` or ``unfinished``.
        val_char_accuracy: Validation character accuracy of the best epoch, 0 to 1; None unless ``completed``.
        val_seq_accuracy: Validation sequence accuracy of the best epoch.
        test_char_accuracy: Character accuracy of that epoch on the test split, which no trial uses.
        test_seq_accuracy: Sequence accuracy of that epoch on the test split.
    """

    seed: int
    state: str
    val_char_accuracy: float | None = None
    val_seq_accuracy: float | None = None
    test_char_accuracy: float | None = None
    test_seq_accuracy: float | None = None


METRICS = ("val_char_accuracy", "val_seq_accuracy", "test_char_accuracy", "test_seq_accuracy")


@dataclass(frozen=True)
class Candidate:
    """A configuration and its repetitions.

    Attributes:
        name: The name of the configuration's trial in the study.
        first_val_char_accuracy: Validation character accuracy of that trial; optimistically biased by the selection.
        repetitions: One repetition per seed.
    """

    name: str
    first_val_char_accuracy: float
    repetitions: tuple[Repetition, ...]

    def values(self, metric: str) -> list[float]:
        """Return the values of a metric, one of `METRICS`, in the completed repetitions."""
        values = (getattr(repetition, metric) for repetition in self.repetitions)
        return [value for value in values if value is not None]

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over the seeds; None if no repetition has completed."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation of a metric over the seeds; None with fewer than two completed repetitions."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Confirmation:
    """The results of retraining the best configurations.

    Attributes:
        seeds: The new seeds.
        folder: The folder of the repetitions.
        candidates: The configurations; the first one is the study's winner.
        comparisons: The winner compared with each other configuration by test character accuracy.
    """

    seeds: tuple[int, ...]
    folder: Path
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]

    def count(self, state: str) -> int:
        """Return the number of repetitions in a state."""
        return sum(repetition.state == state for item in self.candidates for repetition in item.repetitions)


def confirm(
    candidates: Candidates,
    seeds: Sequence[int],
    *,
    open_display: Callable[[], AbstractContextManager[Display]],
    workers: int = 1,
    device: str | None = None,
) -> Confirmation:
    """Train configurations on new seeds and evaluate them on the test split; finished repetitions are not retrained.

    The repetitions with one seed are a normal study, in ``{output_dir}_confirm/seed_{seed}``, that can be resumed.

    Args:
        candidates: The configurations.
        seeds: The new seeds.
        open_display: Called for each seed to open the progress display.
        workers: Number of parallel worker processes.
        device: The device of all repetitions; None for the device of each configuration.

    Raises:
        ConfigurationError: The folder of a seed has another study or is damaged, or the device is not available.
        DataLoaderError: The dataset is missing or damaged.
    """
    repetitions: dict[tuple[str, int], Repetition] = {}
    for position, seed in enumerate(seeds, start=1):
        with open_display() as display:
            display.note(f"seed {seed} ({position} of {len(seeds)}): {candidates.seed_dir(seed)}")
            request = _request(candidates, seed, workers, device)
            session = _session(candidates, request, display)
            run_request(session, request)
        ended = {record.experiment_name: record for record in ended_records(session.study)}
        for candidate in candidates.records:
            if record := ended.get(_name(candidate)):
                repetitions[candidate.experiment_name, seed] = _repetition(candidates, session, seed, record)
            elif request.trial_filter.skipped:
                repetitions[candidate.experiment_name, seed] = Repetition(seed, "failed")
        if session.stop_requested:
            break
    return _confirmation(candidates, seeds, repetitions)


def _request(candidates: Candidates, seed: int, workers: int, device: str | None) -> RunRequest:
    folder = candidates.seed_dir(seed)
    models, names = candidates.folder.model_definitions_path, {_name(record): record for record in candidates.records}
    experiments = {name: preset_config(record, candidates.invariants, name, models) for name, record in names.items()}
    return RunRequest(
        RunOptions(folder, device=device, workers=workers, results_file=f"{folder}/results.json"),
        with_overrides(experiments, seed=seed, device=device),
        candidates.targets,
        file_order=list(experiments),
    )


def _session(candidates: Candidates, request: RunRequest, display: Display) -> Session:
    request.check()  # outside of the try block, since retraining would not fix the request's problems
    folder = Path(request.options.output_dir)
    try:
        return Session.open(request, display)
    except ConfigurationError as error:
        if not folder.exists():
            raise
        # The remedies of the original problems do not apply, since the user did not choose this folder.
        remedy = f"{folder} is from an earlier state of the study; move {candidates.root} away to retrain everything"
        raise ConfigurationError([*error.problems, remedy]) from error


def _name(record: TrialRecord) -> str:
    """Return the name of the experiment that retrains a trial.

    No two trials of a study share this name, and it stays the same if ``--top`` selects other trials.
    """
    name = record.experiment_name
    if record.kind is TrialKind.SEARCH:
        return preset_name("best", name)  # presets must not have the names of search trials
    is_ambiguous = name.casefold().startswith("best_search_")
    return fitting_name(name, f"_{record.number}") if is_ambiguous else name


def _repetition(candidates: Candidates, session: Session, seed: int, record: TrialRecord) -> Repetition:
    if record.phase is TrialPhase.FAILED:
        return Repetition(seed, "failed")
    checkpoint = best_checkpoint_path(session.context.folder.trial_dir(record.experiment_name))
    reader = reader_of_checkpoint(checkpoint, device=session.context.device or TrainingConfig.device)
    test = evaluate_split(reader, candidates.metadata_path, TEST_SPLIT)
    val = (reader.metrics["val_char_accuracy"], reader.metrics["val_seq_accuracy"])
    return Repetition(seed, "completed", *val, test.char_accuracy, test.seq_accuracy)


def _confirmation(
    candidates: Candidates, seeds: Sequence[int], repetitions: Mapping[tuple[str, int], Repetition]
) -> Confirmation:
    items = []
    for record in candidates.records:
        assert record.outcome is not None, f"trial {record.number} has completed, but has no outcome"
        name = record.experiment_name
        own = tuple(repetitions.get((name, seed), Repetition(seed, "unfinished")) for seed in seeds)
        items.append(Candidate(name, record.outcome.best_val_char_accuracy, own))
    winner, *others = items
    comparisons = (compare(winner.name, other.name, _pairs(winner, other)) for other in others)
    return Confirmation(tuple(seeds), candidates.root, tuple(items), tuple(comparisons))


def _pairs(winner: Candidate, other: Candidate) -> list[tuple[float, float]]:
    pairs = zip(winner.repetitions, other.repetitions, strict=True)
    return [
        (one.test_char_accuracy, two.test_char_accuracy)
        for one, two in pairs
        if one.test_char_accuracy is not None and two.test_char_accuracy is not None
    ]
