"""A study opened for work: every input checked first, then the dataset and the study opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from search_spaces import (
    ConfigurationError,
    DataLoaderError,
    SearchSpace,
    Targets,
    TrainingConfig,
)
from studies import (
    OutputFolder,
    SearchRequest,
    StudyInvariants,
    add_search_trials,
    enqueue_presets,
    find_study,
    load_study,
    refuse_changed_presets,
    refuse_other_search,
    save_targets,
    stop_token,
    study_invariants,
    study_targets,
    version_notes,
)
from tuner.data.generation import generate_dataset
from tuner.data.pixel_cache import PixelCache, open_pixel_cache
from tuner.display import Display
from tuner.session.location import StudyLocation
from tuner.session.objective import RunContext
from tuner.session.study_setup import current_invariants, invariants_of, join_study
from tuner.training.device import setup_training_environment


@dataclass(frozen=True)
class Session:
    """A study opened for work.

    Attributes:
        study: The study, with the sampler and pruner that it was begun with.
        context: What its trials have in common here and now.
        storage_url: Where it is kept.
        stop_token: Of the latest request to stop that was there before; another one is meant for this session.
    """

    study: optuna.Study
    context: RunContext
    storage_url: str
    stop_token: str

    @property
    def stop_requested(self) -> bool:
        """Whether somebody has asked those who work on the study to stop, since this session began."""
        return stop_token(self.study) != self.stop_token

    @classmethod
    def open(
        cls,
        place: StudyLocation,
        experiments: Mapping[str, TrainingConfig],
        targets: Targets,
        *,
        file_order: Sequence[str],
        may_generate: bool,
        display: Display,
        device: str | None = None,
        space: SearchSpace | None = None,
        search: SearchRequest | None = None,
    ) -> Session:
        """Check everything, then open the dataset and the study, and enqueue the experiments it does not have yet.

        Args:
            place: Where the study is kept.
            experiments: What to train; they agree in dataset, splits, monitor, mode, model definitions and seed.
            targets: What they should reach.
            file_order: All names of the file that they come from.
            may_generate: Whether the default dataset is made if it is missing.
            display: Who is told.
            device: Where all trials train; None for where each configuration says.
            space: What a search may vary; None for what the study has, or the shipped one if it has none yet.
            search: Search trials that the study is to have, and how they are to be drawn and judged.

        Raises:
            ConfigurationError: Something cannot be used, or does not fit the study. Nothing was created.
            DataLoaderError: The dataset is missing or damaged.
        """
        place.check()
        for asked in {config.device for config in experiments.values()}:
            setup_training_environment(TrainingConfig(device=asked))
        folder = OutputFolder(place.output_dir)
        request = search or SearchRequest()
        token = _refuse_early(place, experiments, space, request)
        first = next(iter(experiments.values()))
        _ensure_dataset(Path(first.metadata_path), may_generate, display)
        cache = open_pixel_cache(first.metadata_path, [first.train_split, first.val_split])
        study = _join(place, folder, invariants_of(first, cache.fingerprint), display)
        # A study that is kept elsewhere may have been there without this folder.
        token = stop_token(study) if token is None else token
        enqueue_presets(study, folder, experiments, space, file_order=file_order)
        save_targets(study, targets)
        if request.at_least or request.more:
            add_search_trials(study, folder, request)
        context = RunContext(folder, cache, experiments, device, targets, display)
        return cls(study, context, place.storage_url, token)

    @classmethod
    def reopen(
        cls,
        output_dir: Path,
        *,
        display: Display,
        storage: str | None = None,
        study_name: str | None = None,
        device: str | None = None,
        metadata: str | None = None,
        experiments: Mapping[str, TrainingConfig] | None = None,
        token: str | None = None,
    ) -> Session:
        """Open a study that has begun, with nothing but what its folder and the study itself remember.

        Args:
            output_dir: The study's folder.
            display: Who is told.
            storage: Its storage URL, needed only to add a password.
            study_name: Its name, needed only to make sure.
            device: Where all trials train; None for where each configuration says.
            metadata: The dataset's metadata file on this machine; None for where the study says.
            experiments: Experiments whose work-related settings are newer than those that the study has.
            token: See `stop_token`, if it was looked at before; None to look at it here.

        Raises:
            ConfigurationError: The folder holds no study, or something has changed that may not change.
            DataLoaderError: The dataset is missing or damaged.
        """
        setup_training_environment(TrainingConfig(device=device or TrainingConfig.device))
        begun, folder = load_study(output_dir, storage_url=storage, name=study_name)
        token = stop_token(begun) if token is None else token
        _, url = find_study(output_dir, storage_url=storage)
        invariants = study_invariants(begun)
        cache = _cache_of(invariants, folder, metadata)
        place = StudyLocation(output_dir, begun.study_name, url, device or TrainingConfig.device)
        study = _join(place, folder, current_invariants(invariants, cache.fingerprint), display)
        context = RunContext(folder, cache, experiments or {}, device, study_targets(study), display)
        return cls(study, context, url, token)

    def search(self, request: SearchRequest) -> None:
        """Give the study more search trials.

        Raises:
            ConfigurationError: The study searches in another way already.
        """
        add_search_trials(self.study, self.context.folder, request)


def _refuse_early(
    place: StudyLocation, experiments: Mapping[str, TrainingConfig], space: SearchSpace | None, request: SearchRequest
) -> str | None:
    """Refuse what the folder's study cannot take before a dataset is drawn for it.

    Returns:
        The token of the study's latest stop; None if the folder has none yet.
    """
    try:
        study, _ = load_study(place.output_dir, storage_url=place.storage, name=place.study_name)
    except ConfigurationError:  # there is none yet
        return None
    refuse_changed_presets(study, experiments, space)
    refuse_other_search(study, request)
    return stop_token(study)


def _join(place: StudyLocation, folder: OutputFolder, invariants: StudyInvariants, display: Display) -> optuna.Study:
    study = join_study(place.storage_url, place.study_name, folder, invariants)
    for note in version_notes(study, invariants):
        display.note(note)
    return study


def _ensure_dataset(metadata_path: Path, may_generate: bool, display: Display) -> None:
    if metadata_path.exists() or not may_generate:
        return
    display.note(f"no dataset at {metadata_path}: drawing the default one (5,000 images and 1,000 for testing)")
    generate_dataset(metadata_path.parent, on_progress=display.dataset_progress)


def _cache_of(invariants: StudyInvariants, folder: OutputFolder, metadata: str | None) -> PixelCache:
    path = Path(metadata or invariants.dataset["metadata_path"])
    if not path.exists() and metadata is None:
        raise DataLoaderError(
            f"{path}: the dataset of the study in {folder.path} is gone; put it back, say with --metadata where it is "
            "on this machine, or repeat `khmer-tuner run` with a --config that says where it is now"
        )
    return open_pixel_cache(path, [invariants.dataset["train_split"], invariants.dataset["val_split"]])
