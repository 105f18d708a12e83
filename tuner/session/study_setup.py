"""Invariants of a study, and joining it with them; nothing here needs PyTorch."""

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
from search_spaces.diagnostics.atomic_files import write_text
from search_spaces.files.regular_files import read_bytes
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
    """What is needed to join a study that has started.

    Attributes:
        name: The study's name.
        folder: Its output folder.
        storage_url: Its storage URL.
        invariants: Its fixed settings.
        stop_token: The latest request to stop, which is not for processes that join later.
    """

    name: str
    folder: OutputFolder
    storage_url: str
    invariants: StudyInvariants
    stop_token: str

    @classmethod
    def load(cls, output_dir: str | Path, *, storage: str | None = None, name: str | None = None) -> ExistingStudy:
        """Read them from an output folder and its study; nothing is created or written.

        The arguments and errors are those of `load_study`.
        """
        study, folder = load_study(output_dir, storage_url=storage, name=name)
        _, url = find_study(output_dir, storage_url=storage)
        return cls(study.study_name, folder, url, study_invariants(study), stop_token(study))


def with_overrides(
    experiments: Mapping[str, TrainingConfig], *, seed: int | None, device: str | None
) -> dict[str, TrainingConfig]:
    """Return experiments with the command's seed and device, where it gives them."""
    given: dict[str, Any] = {"seed": seed, "device": device}
    overrides = {name: value for name, value in given.items() if value is not None}
    return {name: replace(config, **overrides) for name, config in experiments.items()}


def invariants_of(config: TrainingConfig, fingerprint: str, image_folder: str | None = None) -> StudyInvariants:
    """Return the invariants of a study that trains an experiment.

    Args:
        config: The experiment's configuration.
        fingerprint: Of the content of its dataset's splits.
        image_folder: Where the images are; None if unknown.

    Raises:
        FileNotFoundError, yaml.YAMLError, ConfigurationError: As `load_model_definitions`.
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
            "metadata_path": os.path.abspath(config.metadata_path),
            **({} if image_folder is None else {"image_folder": image_folder}),
        },
        models={name: definition.model_dump(mode="json") for name, definition in definitions.items()},
        versions=_versions(),
    )


def current_invariants(existing: StudyInvariants, fingerprint: str, image_folder: str) -> StudyInvariants:
    """Return a study's invariants with what can have changed since: the dataset's content and the versions."""
    dataset = {**existing.dataset, "fingerprint": fingerprint, "image_folder": image_folder}
    return replace(existing, dataset=dataset, versions=_versions())


def join_study(storage_url: str, name: str, folder: OutputFolder, invariants: StudyInvariants) -> optuna.Study:
    """Return the folder's study for work, with all models of the invariants; created if missing.

    Raises:
        ConfigurationError: As `create_or_join_study`.
    """
    study = create_or_join_study(open_storage(storage_url), name, folder, invariants)
    save_model_definitions(study, folder)
    return study


def save_model_definitions(study: optuna.Study, folder: OutputFolder) -> None:
    """Keep a copy of the study's model definitions in a folder; another process, or machine, may have added some."""
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
