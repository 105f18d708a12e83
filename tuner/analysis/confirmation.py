"""Retraining the best configurations of a study on new seeds, to compare them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna

from search_spaces import ConfigurationError, DataLoaderError, Targets, TrainingConfig, config_digest, override
from search_spaces.experiments.overrides import Overrides
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialKind,
    TrialPhase,
    TrialRecord,
    best_records,
    ended_records,
    require_same_invariants,
    study_invariants,
    study_targets,
)
from tuner.analysis.best_trial import fitting_name, preset_config, preset_name
from tuner.analysis.paired_t_test import Comparison, compare
from tuner.data.pixel_cache import open_pixel_cache
from tuner.display.events import Display
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.inference.reader import evaluate_split
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.study_setup import current_invariants, with_overrides
from tuner.training.history import best_checkpoint_path
from tuner.workers.run_study import run_request

TEST_SPLIT = "test"

_SEEDS = 2**32


@dataclass(frozen=True)
class Candidates:
    """The best configurations of a study.

    Attributes:
        folder: The study's output folder.
        invariants: The fixed settings of the study.
        targets: The study's targets.
        records: The best completed trials with different settings, the best first.
    """

    folder: OutputFolder
    invariants: StudyInvariants
    targets: Targets
    records: tuple[TrialRecord, ...]

    @property
    def root(self) -> Path:
        """The folder of all repetitions; it is in the same folder as the study's output folder."""
        return self.folder.confirmation_path.parent

    @property
    def metadata_path(self) -> str:
        """The last known path of the study's dataset."""
        return str(self.invariants.dataset["metadata_path"])

    def seed_dir(self, seed: int) -> Path:
        """Return the output folder of all repetitions with one seed."""
        return self.root / f"seed_{seed}"

    def new_seeds(self, count: int) -> list[int]:
        """Return the next `count` seeds after the study's seed.

        A repeated command gets the same seeds, so it resumes the repetitions or uses their results.
        """
        return [(self.invariants.seed + step) % _SEEDS for step in range(1, count + 1)]


def find_candidates(
    study: optuna.Study, folder: OutputFolder, top: int, overrides: Overrides | None = None
) -> Candidates:
    """Select the best configurations of a study, and check that they can be compared on the test split.

    Args:
        study: The study.
        folder: The study's output folder.
        top: The maximum number of configurations, 2 or more.
        overrides: Settings that replace those of the configurations in all repetitions.

    Raises:
        ConfigurationError: Fewer than two configurations have completed, an override is incompatible with a
            configuration, or the study's dataset has no test split or has changed.
        DataLoaderError: The study's dataset is missing or damaged.
    """
    distinct: dict[str, TrialRecord] = {}
    for record in best_records(ended_records(study)):
        distinct.setdefault(config_digest(record.training_config), record)
    if len(distinct) < 2:
        raise ConfigurationError(
            f"output folder {folder.path}: completed configurations: found {len(distinct)}; expected at least "
            "2 to compare; run `khmer-tuner status` to see the progress, or `khmer-tuner search` to add trials"
        )
    best = tuple(_overridden(record, folder, overrides or {}) for record in list(distinct.values())[:top])
    candidates = Candidates(folder, study_invariants(study), study_targets(study), best)
    _check_test_split(candidates)
    _check_dataset(study, candidates)
    return candidates


def _overridden(record: TrialRecord, folder: OutputFolder, overrides: Overrides) -> TrialRecord:
    config = replace(record.training_config, model_config_path=str(folder.model_definitions_path))
    # Overrides are validated like the experiments of a file, which must not have the names of search trials.
    [changed] = override({"candidate": config}, overrides).values()
    return replace(record, config=asdict(replace(changed, experiment_name=config.experiment_name)))


def _check_test_split(candidates: Candidates) -> None:
    dataset = candidates.invariants.dataset
    rule = f"the best configurations are compared on the split {TEST_SPLIT!r}, so no trial may use it"
    used = {dataset["train_split"]: "trains on the test split", dataset["val_split"]: "validates on the test split"}
    if TEST_SPLIT in used:
        raise ConfigurationError(
            f"{candidates.metadata_path}: the study {used[TEST_SPLIT]}; {rule}; start a study with other splits"
        )
    try:
        open_pixel_cache(candidates.metadata_path, [TEST_SPLIT])
    except DataLoaderError as error:
        first, *others = error.problems
        raise ConfigurationError([f"{first}; {rule}", *others]) from error


def _check_dataset(study: optuna.Study, candidates: Candidates) -> None:
    """Raise if the dataset has changed, because the study selected its best configurations on the original one."""
    dataset = candidates.invariants.dataset
    cache = open_pixel_cache(candidates.metadata_path, [dataset["train_split"], dataset["val_split"]])
    current = current_invariants(candidates.invariants, cache.fingerprint, cache.image_folder)
    require_same_invariants(study, candidates.folder, current)


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
