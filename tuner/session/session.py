"""A study opened for training, with its dataset, after all inputs have been checked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna

from search_spaces import ConfigurationError, DataLoaderError, TrainingConfig
from studies import (
    OutputFolder,
    StudyInvariants,
    has_study,
    load_study,
    refuse_changed_presets,
    refuse_foreign_folders,
    require_same_search,
    require_same_threads,
    save_targets,
    stop_token,
    study_targets,
    version_notes,
)
from tuner.data.generation.dataset import generate_dataset
from tuner.data.pixel_cache import PixelCache, open_pixel_cache
from tuner.display.events import Display
from tuner.session.run_context import RunContext
from tuner.session.run_options import check_device
from tuner.session.run_request import RunRequest
from tuner.session.study_setup import ExistingStudy, current_invariants, invariants_of, join_study


@dataclass(frozen=True)
class Session:
    """A study opened for training.

    Attributes:
        study: The study, with its sampler and pruner.
        context: The context that its trials share in this process.
        storage_url: The study's storage URL.
        stop_token: The latest stop request before this session; later requests stop this session.
    """

    study: optuna.Study
    context: RunContext
    storage_url: str
    stop_token: str

    @property
    def stop_requested(self) -> bool:
        """Whether a stop of the study was requested after this session started."""
        return stop_token(self.study) != self.stop_token

    @classmethod
    def open(cls, request: RunRequest, display: Display) -> Session:
        """Check all inputs, open the dataset and the study, and enqueue the experiments that the study does not have.

        Raises:
            ConfigurationError: An input is invalid or contradicts the study. Nothing was created.
            DataLoaderError: The dataset is missing or damaged.
        """
        request.check()
        options, first = request.options, request.first
        folder = OutputFolder(options.output_dir)
        folder.owner()  # the owner with which `check_in_place` compares from now on
        token = _check_against_study(request)
        _ensure_dataset(Path(first.metadata_path), request.may_generate, display)
        cache = _open_cache(first.metadata_path, [first.train_split, first.val_split])
        request = request.with_sizes(cache.vocabulary.sizes)
        invariants = invariants_of(request.first, cache.fingerprint, cache.image_folder)
        study = _join(options.storage_url, options.study_name, folder, invariants, display)
        # The study can exist in a separate storage even if this folder is new.
        token = stop_token(study) if token is None else token
        # Before the trials, because `resume` continues a study that has trials.
        if request.experiments or not study_targets(study).goals():  # a search without experiments has no targets
            save_targets(study, request.targets)
        request.enqueue(study, folder, display.note)
        context = RunContext(folder, cache, request.experiments, options.device, study_targets(study), display)
        return cls(study, context, options.storage_url, token)

    @classmethod
    def reopen(
        cls,
        existing: ExistingStudy,
        display: Display,
        *,
        device: str | None = None,
        metadata: str | None = None,
        experiments: Mapping[str, TrainingConfig] | None = None,
        threads: int | None = None,
    ) -> Session:
        """Open an existing study with the settings that are stored in it.

        Args:
            existing: The study.
            display: Shows notes.
            device: The device of all trials; None for the device in each configuration.
            metadata: The dataset's metadata file on this machine; None for the path stored in the study.
            experiments: Experiments, keyed by name; their settings without effect on the result replace those of the
                study.
            threads: The number of threads that the study must have, if it has a number; None accepts any.

        Raises:
            ConfigurationError: The device is not available, or a setting of the study has changed.
            DataLoaderError: The dataset is missing or damaged.
        """
        check_device(device)
        cache = _cache_of(existing.invariants, existing.folder, metadata)
        invariants = current_invariants(existing.invariants, cache.fingerprint, cache.image_folder)
        study = _join(existing.storage_url, existing.name, existing.folder, invariants, display)
        require_same_threads(study, threads)
        context = RunContext(existing.folder, cache, experiments or {}, device, study_targets(study), display)
        return cls(study, context, existing.storage_url, existing.stop_token)


def _check_against_study(request: RunRequest) -> str | None:
    """Check a request against its study before a dataset is generated; return the stop token, None for a new study."""
    options, occupied = request.options, request.occupied(OutputFolder(request.options.output_dir))
    study: optuna.Study | None = None
    with suppress(ConfigurationError):  # the study does not exist yet
        study, _ = load_study(options.output_dir, storage_url=options.storage, name=options.study_name)
    if options.search.fixed:
        request.search_space(study)
    # `has_study` raises for an unreachable server or an unsuitable database.
    if study is None and has_study(options.storage_url, options.study_name):
        return None  # `join_study` reports that the study's owner file is missing or damaged
    refuse_foreign_folders(study, occupied)
    if study is None:
        return None
    refuse_changed_presets(study, OutputFolder(options.output_dir), request.experiments, request.space)
    require_same_search(study, options.search)
    require_same_threads(study, options.threads)
    return stop_token(study)


def _join(url: str, name: str, folder: OutputFolder, invariants: StudyInvariants, display: Display) -> optuna.Study:
    folder.check_in_place()
    study = join_study(url, name, folder, invariants)
    for note in version_notes(study, invariants):
        display.note(note)
    return study


def _ensure_dataset(metadata_path: Path, may_generate: bool, display: Display) -> None:
    if metadata_path.exists() or not may_generate:
        return
    display.note(f"no dataset at {metadata_path}; generating the default dataset (5,000 images and 1,000 test images)")
    generate_dataset(metadata_path.parent, on_progress=display.dataset_progress)


def _cache_of(invariants: StudyInvariants, folder: OutputFolder, metadata: str | None) -> PixelCache:
    path = Path(metadata or invariants.dataset["metadata_path"])
    if not path.exists() and metadata is None:
        raise DataLoaderError(
            f"{path}: the dataset of the study in {folder.path} is missing; restore the dataset, set its new path "
            "with --metadata, or run `khmer-tuner run` with a --config that contains the new path"
        )
    return _open_cache(path, [invariants.dataset["train_split"], invariants.dataset["val_split"]])


def _open_cache(path: str | Path, splits: list[str]) -> PixelCache:
    cache = open_pixel_cache(path, splits)
    _ = cache.unseen  # opened now, because a trial would fail at its end
    return cache
