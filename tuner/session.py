"""A run's session on a study: every input checked first, then dataset and study opened, then trials worked off."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from search_spaces import (
    ConfigurationError,
    Targets,
    TrainingConfig,
    definitions_digest,
    load_model_definitions,
    load_search_space,
)
from studies import (
    OutputFolder,
    StudyTerms,
    TrialPhase,
    TrialRecord,
    check_storage_url,
    claim_next,
    create_or_join_study,
    default_storage_url,
    ended_records,
    enqueue_presets,
    open_storage,
    version_notes,
)
from tuner.data.generation import generate_dataset
from tuner.data.pixel_cache import PixelCache, open_pixel_cache
from tuner.display import Display
from tuner.objective import Workplace, run_trial
from tuner.training.environment import setup_training_environment

SEARCH_SPACE = "config/search_space.yaml"


@dataclass(frozen=True)
class StudyPlace:
    """Where a study is kept, and on what it trains.

    Attributes:
        output_dir: The study's folder.
        study_name: The study's name.
        storage: Its storage URL; None for the SQLite file in the folder.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    output_dir: Path
    study_name: str
    storage: str | None
    device: str

    @property
    def storage_url(self) -> str:
        """The storage URL, the default filled in."""
        return self.storage or default_storage_url(self.output_dir)

    def check(self) -> None:
        """Check all of it without creating anything.

        Raises:
            ConfigurationError: Something cannot be used; all problems at once.
        """
        url = self.storage_url
        try:
            check_storage_url(url, output_dir=self.output_dir)
            problems: list[str] = []
        except ConfigurationError as error:
            # The folder is looked at all the same, as if no URL was given: this one cannot be compared.
            problems, url = list(error.problems), default_storage_url(self.output_dir)
        checks: list[Callable[[], object]] = [
            lambda: OutputFolder(self.output_dir).check(self.study_name, url),
            lambda: setup_training_environment(TrainingConfig(device=self.device)),
        ]
        for check in checks:
            try:
                check()
            except ConfigurationError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        if problems:
            raise ConfigurationError(problems)


class Session:
    """A study opened for training some experiments."""

    def __init__(
        self,
        study: optuna.Study,
        workplace: Workplace,
        experiments: Mapping[str, TrainingConfig],
        *,
        storage_url: str,
    ) -> None:
        """Take what `open` prepared."""
        self.storage_url = storage_url
        self.study = study
        self._workplace = workplace
        self._experiments = experiments

    @classmethod
    def open(
        cls,
        place: StudyPlace,
        experiments: Mapping[str, TrainingConfig],
        targets: Targets,
        *,
        file_order: Sequence[str],
        may_generate: bool,
        display: Display,
    ) -> Session:
        """Check everything, then open the dataset and the study, and enqueue what the study does not have yet.

        Args:
            place: Where the study is kept.
            experiments: What to train; they agree in dataset, splits, monitor, mode, model definitions and seed.
            targets: What they should reach.
            file_order: All names of the file that they come from.
            may_generate: Whether the default dataset is made if it is missing.
            display: Who is told.

        Raises:
            ConfigurationError: Something cannot be used, or does not fit the study. Nothing was created.
            DataLoaderError: The dataset is missing or damaged.
        """
        place.check()
        for device in {config.device for config in experiments.values()}:
            setup_training_environment(TrainingConfig(device=device))
        first = next(iter(experiments.values()))
        _ensure_dataset(Path(first.metadata_path), may_generate, display)
        cache = open_pixel_cache(first.metadata_path, [first.train_split, first.val_split])
        folder = OutputFolder(place.output_dir)
        terms = _terms(first, cache)
        study = create_or_join_study(open_storage(place.storage_url), place.study_name, folder, terms)
        for note in version_notes(study, terms):
            display.note(note)
        space = load_search_space(SEARCH_SPACE)
        enqueue_presets(study, folder, experiments, space, file_order=file_order)
        workplace = Workplace(folder, cache, experiments, targets, display)
        return cls(study, workplace, experiments, storage_url=place.storage_url)

    def work(self) -> None:
        """Train what is left of the experiments, one after another, until nothing is left to claim."""
        display, names = self._workplace.display, self._experiments
        display.run_started(names, self.records())
        while (claim := claim_next(self.study, self._workplace.folder, names)) is not None:
            with claim:
                run_trial(claim, self._workplace)
            display.trial_ended(self._record(claim.record.experiment_name))
        missing = set(names) - {record.experiment_name for record in self.records()}
        if missing:
            display.note(f"another process is training {', '.join(sorted(missing))}")

    def records(self, names: Collection[str] | None = None) -> list[TrialRecord]:
        """Return the ended trials of the experiments, in the order of their file."""
        wanted = self._experiments if names is None else names
        return [record for record in ended_records(self.study) if record.experiment_name in wanted]

    def failed(self) -> bool:
        """Return whether an experiment failed."""
        return any(record.phase is TrialPhase.FAILED for record in self.records())

    def _record(self, name: str) -> TrialRecord:
        return self.records([name])[0]


def with_overrides(
    experiments: Mapping[str, TrainingConfig], *, seed: int | None, device: str | None
) -> dict[str, TrainingConfig]:
    """Return experiments with the command's seed and device, where it gives them."""
    return {
        name: replace(
            config,
            seed=config.seed if seed is None else seed,
            device=config.device if device is None else device,
        )
        for name, config in experiments.items()
    }


def _ensure_dataset(metadata_path: Path, may_generate: bool, display: Display) -> None:
    if metadata_path.exists() or not may_generate:
        return
    display.note(f"no dataset at {metadata_path}: drawing the default one (5,000 images and 1,000 for testing)")
    generate_dataset(metadata_path.parent, on_progress=display.dataset_progress)


def _terms(config: TrainingConfig, cache: PixelCache) -> StudyTerms:
    definitions = load_model_definitions(config.model_config_path)
    return StudyTerms(
        monitor=config.early_stopping_monitor,
        mode=config.early_stopping_mode,
        seed=config.seed,
        dataset={
            "fingerprint": cache.fingerprint,
            "train_split": config.train_split,
            "val_split": config.val_split,
            "metadata_path": os.path.abspath(config.metadata_path),
        },
        model_definitions_digest=definitions_digest(definitions, definitions),
        versions={
            "python": platform.python_version(),
            "torch": importlib.metadata.version("torch"),
            "optuna": importlib.metadata.version("optuna"),
        },
    )
