"""Training the best configurations of a study again on new seeds, to see which of them are better than others."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from search_spaces import ConfigurationError, TrainingConfig
from studies import DEFAULT_STUDY_NAME, TrialKind, TrialPhase, TrialRecord, ended_records
from tuner.analysis.candidates import TEST_SPLIT, Contenders
from tuner.analysis.paired_t_test import Comparison, compare
from tuner.analysis.preset_export import fitting_name, preset_config, preset_name
from tuner.display import Display
from tuner.inference.reader import evaluate_split, load_reader
from tuner.session.location import StudyLocation
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.study_setup import with_overrides
from tuner.training.checkpoints import load_checkpoint
from tuner.workers.auto_count import WorkerCount
from tuner.workers.run_study import run_study

# What names of repetitions of search trials begin with.
_SEARCHED = "best_search_"


@dataclass(frozen=True)
class Repetition:
    """One configuration trained on one new seed.

    Attributes:
        seed: The seed.
        state: ``completed``, ``failed``, or ``unfinished`` if it was left for later.
        val_char_accuracy: Of the epoch that was kept, 0 to 1; None if it has not completed.
        val_seq_accuracy: The same.
        test_char_accuracy: The same, on the images that neither training nor the choice of an epoch has seen.
        test_seq_accuracy: The same.
    """

    seed: int
    state: str
    val_char_accuracy: float | None = None
    val_seq_accuracy: float | None = None
    test_char_accuracy: float | None = None
    test_seq_accuracy: float | None = None


FIGURES = ("val_char_accuracy", "val_seq_accuracy", "test_char_accuracy", "test_seq_accuracy")


@dataclass(frozen=True)
class Candidate:
    """A configuration and its repetitions.

    Attributes:
        name: Of its trial in the study.
        first_val_char_accuracy: What the study chose it for, 0 to 1. Being chosen makes it look better than it is.
        repetitions: One for each seed.
    """

    name: str
    first_val_char_accuracy: float
    repetitions: tuple[Repetition, ...]

    def values(self, figure: str) -> list[float]:
        """Return one of `FIGURES` of every repetition that has completed."""
        found = (getattr(repetition, figure) for repetition in self.repetitions)
        return [value for value in found if value is not None]

    def mean(self, figure: str) -> float | None:
        """Return a figure's mean; None if no repetition has completed."""
        values = self.values(figure)
        return statistics.fmean(values) if values else None

    def deviation(self, figure: str) -> float | None:
        """Return a figure's standard deviation over the seeds; None if fewer than two have completed."""
        values = self.values(figure)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Confirmation:
    """What training the best configurations again has shown.

    Attributes:
        seeds: The new seeds.
        folder: Where the repetitions are.
        candidates: The configurations, in the order of the study.
        comparisons: The study's winner with each of the others, by test character accuracy.
    """

    seeds: tuple[int, ...]
    folder: Path
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]

    def count(self, state: str) -> int:
        """Return how many repetitions are in a state."""
        return sum(repetition.state == state for item in self.candidates for repetition in item.repetitions)


def confirm(
    candidates: Contenders,
    seeds: Sequence[int],
    *,
    open_display: Callable[[], AbstractContextManager[Display]],
    workers: WorkerCount = 1,
    device: str | None = None,
) -> Confirmation:
    """Train configurations on new seeds and score them on the test split; what is trained already stays as it is.

    Every seed is an ordinary study, in ``{output_dir}_confirm/seed_{seed}``, so it can be interrupted and repeated.

    Args:
        candidates: What to train.
        seeds: The new seeds.
        open_display: Opens who is told, for each seed anew.
        workers: Processes that train side by side; ``auto`` measures for each seed how many are fastest.
        device: Where all train; None for where each configuration says.

    Raises:
        ConfigurationError: What was trained there before is of another study, or cannot be read any more, or the
            device is not there.
        DataLoaderError: The dataset is missing or damaged.
    """
    found: dict[str, list[Repetition]] = {record.experiment_name: [] for record in candidates.records}
    for position, seed in enumerate(seeds, start=1):
        with open_display() as display:
            display.note(f"seed {seed} ({position} of {len(seeds)}): {candidates.seed_dir(seed)}")
            session = _session(candidates, seed, display, device)
            results_file = str(candidates.seed_dir(seed) / "results.json")
            names = frozenset(session.context.experiments)
            run_study(
                session, TrialFilter(names, search=False), StopConditions(), workers=workers, results_file=results_file
            )
        for name, repetition in _repetitions(candidates, session, seed):
            found[name].append(repetition)
        if session.stop_requested:
            break
    return _confirmation(candidates, seeds, found)


def _session(candidates: Contenders, seed: int, display: Display, device: str | None) -> Session:
    experiments, folder = _experiments(candidates, seed, device), candidates.seed_dir(seed)
    place = StudyLocation(folder, DEFAULT_STUDY_NAME, None, device or TrainingConfig.device)
    # What is wrong with these is not mended by training all again.
    for asked in {config.device for config in experiments.values()}:
        replace(place, device=asked).check()
    try:
        return Session.open(
            place,
            experiments,
            candidates.targets,
            file_order=list(experiments),
            may_generate=False,
            display=display,
            device=device,
        )
    except ConfigurationError as error:
        if not folder.exists():
            raise
        # The usual remedies do not help here: nobody chose this folder.
        remedy = f"{folder} was trained for the study as it was then: move {candidates.root} away to train all again"
        raise ConfigurationError([*error.problems, remedy]) from error


def _experiments(candidates: Contenders, seed: int, device: str | None) -> dict[str, TrainingConfig]:
    models, names = candidates.folder.model_definitions_path, {_name(record): record for record in candidates.records}
    experiments = {name: preset_config(record, candidates.invariants, name, models) for name, record in names.items()}
    return with_overrides(experiments, seed=seed, device=device)


def _name(record: TrialRecord) -> str:
    """Return what a trial's repetitions are called: not like those of another, and the same for every --top."""
    name = record.experiment_name
    if record.kind is not TrialKind.PRESET:
        return preset_name("best", name)  # names of search trials are reserved for search trials
    is_theirs = name.casefold().startswith(_SEARCHED)
    return fitting_name(name, f"_{record.number}") if is_theirs else name


def _repetitions(candidates: Contenders, session: Session, seed: int) -> Iterator[tuple[str, Repetition]]:
    ended = {record.experiment_name: record for record in ended_records(session.study)}
    for candidate in candidates.records:
        record = ended.get(_name(candidate))
        yield candidate.experiment_name, _repetition(candidates, session, seed, record)


def _repetition(candidates: Contenders, session: Session, seed: int, record: TrialRecord | None) -> Repetition:
    if record is None:
        return Repetition(seed, "unfinished")
    if record.phase is TrialPhase.FAILED:
        return Repetition(seed, "failed")
    checkpoint = session.context.folder.trial_dir(record.experiment_name) / "checkpoints" / "best.pt"
    reader = load_reader(checkpoint, device=session.context.device or TrainingConfig.device)
    test = evaluate_split(reader, candidates.metadata_path, TEST_SPLIT)
    kept = load_checkpoint(checkpoint)["metrics"]
    val = (kept["val_char_accuracy"], kept["val_seq_accuracy"])
    return Repetition(seed, "completed", *val, test.char_accuracy, test.seq_accuracy)


def _confirmation(
    candidates: Contenders, seeds: Sequence[int], found: Mapping[str, Sequence[Repetition]]
) -> Confirmation:
    items = []
    for record in candidates.records:
        assert record.outcome is not None, "a completed trial has an outcome"
        missing = (Repetition(seed, "unfinished") for seed in seeds[len(found[record.experiment_name]) :])
        repetitions = (*found[record.experiment_name], *missing)
        items.append(Candidate(record.experiment_name, record.outcome.best_val_char_accuracy, repetitions))
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
