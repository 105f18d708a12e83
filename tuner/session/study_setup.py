"""The invariants of a study, and the joining of a study, without importing PyTorch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from search_spaces import TrainingConfig, definitions_yaml, load_model_definitions
from search_spaces.diagnostics.disk import write_text
from search_spaces.files.regular_files import read_bytes
from search_spaces.training_config import DATASET_FIELDS
from studies import (
    OutputFolder,
    StudyInvariants,
    create_or_join_study,
    find_study,
    load_study,
    lock_of,
    open_storage,
    stop_token,
    study_invariants,
)


@dataclass(frozen=True)
class ExistingStudy:
    """The data needed to join an existing study.

    Attributes:
        name: The study's name.
        folder: The output folder.
        storage_url: The storage URL.
        invariants: The fixed settings of the study.
        stop_token: The latest stop request; it does not apply to processes that join later.
    """

    name: str
    folder: OutputFolder
    storage_url: str
    invariants: StudyInvariants
    stop_token: str

    @classmethod
    def load(cls, output_dir: str | Path, *, storage: str | None = None, name: str | None = None) -> ExistingStudy:
        """Read the data from an output folder and its study; nothing is created or written.

        The arguments and errors are those of `load_study`.
        """
        study, folder = load_study(output_dir, storage_url=storage, name=name)
        _, url = find_study(output_dir, storage_url=storage)
        return cls(study.study_name, folder, url, study_invariants(study), stop_token(study))


def with_overrides(
    experiments: Mapping[str, TrainingConfig], *, seed: int | None, device: str | None
) -> dict[str, TrainingConfig]:
    """Return the experiments with the command's seed and device; None keeps the value of each experiment."""
    given: dict[str, Any] = {"seed": seed, "device": device}
    overrides = {name: value for name, value in given.items() if value is not None}
    return {name: replace(config, **overrides) for name, config in experiments.items()}


def invariants_of(config: TrainingConfig, fingerprint: str, image_folder: str | None = None) -> StudyInvariants:
    """Derive the invariants of a study from an experiment.

    Args:
        config: The experiment's configuration, with the vocabulary sizes of its dataset.
        fingerprint: Digest of the content of the experiment's dataset splits.
        image_folder: The folder of the images; None if unknown.

    Raises:
        FileNotFoundError, yaml.YAMLError, ConfigurationError: See `load_model_definitions`.
    """
    definitions = load_model_definitions(config.model_config_path)
    return StudyInvariants(
        monitor=config.early_stopping_monitor,
        mode=config.early_stopping_mode,
        seed=config.seed,
        dataset={
            "fingerprint": fingerprint,
            "train_split": config.train_split,
            "val_split": config.val_split,
            **{field: getattr(config, field) for field in DATASET_FIELDS},
            "metadata_path": os.path.abspath(config.metadata_path),
            **({} if image_folder is None else {"image_folder": image_folder}),
        },
        models={name: definition.model_dump(mode="json") for name, definition in definitions.items()},
        versions=_versions(),
    )


def current_invariants(existing: StudyInvariants, fingerprint: str, image_folder: str) -> StudyInvariants:
    """Return a study's invariants with the current dataset content and library versions."""
    dataset = {**existing.dataset, "fingerprint": fingerprint, "image_folder": image_folder}
    return replace(existing, dataset=dataset, versions=_versions())


def join_study(storage_url: str, name: str, folder: OutputFolder, invariants: StudyInvariants) -> optuna.Study:
    """Create a study, or join it and add the model definitions of the invariants; update their copy in `folder`.

    Raises:
        ConfigurationError: See `create_or_join_study`.
    """
    study = create_or_join_study(open_storage(storage_url), name, folder, invariants)
    save_model_definitions(study, folder)
    return study


def save_model_definitions(study: optuna.Study, folder: OutputFolder) -> None:
    """Update the copy of the study's model definitions in `folder`, because other processes can add definitions."""
    text, path = definitions_yaml(study_invariants(study).definitions), folder.model_definitions_path
    if not path.is_file() or read_bytes(path) != text.encode():
        with lock_of(study, folder):
            write_text(path, definitions_yaml(study_invariants(study).definitions))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "optuna": importlib.metadata.version("optuna"),
    }
