"""What a configuration asks of a study, and joining the study under these terms; nothing here needs PyTorch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import replace

import optuna

from search_spaces import (
    SearchSpace,
    TrainingConfig,
    definitions_yaml,
    load_model_definitions,
    load_search_space,
)
from studies import (
    OutputFolder,
    StudyInvariants,
    create_or_join_study,
    lock_of,
    open_storage,
    study_invariants,
    write_text,
)


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


def load_space(path: str | None, config: TrainingConfig) -> SearchSpace | None:
    """Return the search space of a file, checked against the models that a configuration goes by; None for no file.

    Raises:
        FileNotFoundError, yaml.YAMLError, ConfigurationError: As `load_search_space`.
    """
    return None if path is None else load_search_space(path, load_model_definitions(config.model_config_path))


def invariants_of(config: TrainingConfig, fingerprint: str) -> StudyInvariants:
    """Return the terms that an experiment is trained under.

    Args:
        config: The experiment's configuration.
        fingerprint: Of the content of its dataset's splits.

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
        },
        models={name: definition.model_dump(mode="json") for name, definition in definitions.items()},
        versions=_versions(),
    )


def current_invariants(begun: StudyInvariants, fingerprint: str) -> StudyInvariants:
    """Return a study's terms with what can have changed since: the dataset's content and the versions."""
    return replace(begun, dataset={**begun.dataset, "fingerprint": fingerprint}, versions=_versions())


def join_study(storage_url: str, name: str, folder: OutputFolder, invariants: StudyInvariants) -> optuna.Study:
    """Return the folder's study for work, with the terms' models among its own; created if missing.

    Args:
        storage_url: Where it is kept.
        name: Its name.
        folder: Its folder.
        invariants: What is to be trained under.

    Raises:
        ConfigurationError: As `create_or_join_study`.
    """
    study = create_or_join_study(open_storage(storage_url), name, folder, invariants)
    keep_definitions(study, folder)
    return study


def keep_definitions(study: optuna.Study, folder: OutputFolder) -> None:
    """Keep a copy of the study's model definitions in a folder; another process, or machine, may have added some."""
    text, path = definitions_yaml(study_invariants(study).definitions), folder.model_definitions_path
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with lock_of(study, folder):
            write_text(path, definitions_yaml(study_invariants(study).definitions))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "optuna": importlib.metadata.version("optuna"),
    }
