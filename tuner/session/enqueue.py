"""Enqueueing of trials in an existing study, without importing PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from search_spaces import TrainingConfig
from search_spaces.errors import ProblemCollector
from search_spaces.training_config import DATASET_FIELDS
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialRecord,
    latest_records,
    refuse_changed_presets,
    require_same_invariants,
    require_same_search,
    search_budget,
    study_invariants,
)
from tuner.data.pixel_cache import open_pixel_cache
from tuner.session.run_request import RunRequest
from tuner.session.study_setup import invariants_of, join_study


@dataclass(frozen=True)
class EnqueueResult:
    """The result of adding trials to a study.

    Attributes:
        added: The trials of the added experiments, keyed by name.
        existing: The trials of the experiments that the study already had, keyed by name.
        search_trials: Number of search trials in the study, finished or not.
    """

    added: Mapping[str, TrialRecord]
    existing: Mapping[str, TrialRecord]
    search_trials: int


def check_enqueue(request: RunRequest, study: optuna.Study, folder: OutputFolder) -> None:
    """Check that a request fits an existing study, without changing the study.

    Raises:
        ConfigurationError: The request contradicts the study; all differences are reported together.
        DataLoaderError: The dataset file of the experiments is not that of the study, and is missing or damaged.
    """
    problems = ProblemCollector()
    with problems.collect():
        request = request.with_sizes(_sizes(study))
    invariants = _invariants(request, study)
    with problems.collect():
        require_same_invariants(study, folder, invariants)
    with problems.collect():
        refuse_changed_presets(study, folder, request.experiments, request.space)
    with problems.collect():
        require_same_search(study, request.options.search)
    problems.raise_all()


def enqueue(
    request: RunRequest, study: optuna.Study, folder: OutputFolder, storage_url: str, on_note: Callable[[str], object]
) -> EnqueueResult:
    """Enqueue the trials of a request that `check_enqueue` accepted.

    `study` is only read, because the study is joined again to write to it; `on_note` is passed to `enqueue_presets`.

    Raises:
        ConfigurationError: The study has changed since the check.
    """
    request = request.with_sizes(_sizes(study))
    before = {record.experiment_name for record in latest_records(study)}
    joined = join_study(storage_url, study.study_name, folder, _invariants(request, study))
    states = request.enqueue(joined, folder, on_note)
    return EnqueueResult(
        added={name: state for name, state in states.items() if name not in before},
        existing={name: state for name, state in states.items() if name in before},
        search_trials=search_budget(joined),
    )


def _sizes(study: optuna.Study) -> dict[str, int]:
    dataset = study_invariants(study).dataset
    return {field: dataset.get(field, getattr(TrainingConfig, field)) for field in DATASET_FIELDS}


def _invariants(request: RunRequest, study: optuna.Study) -> StudyInvariants:
    existing = study_invariants(study)
    if not request.experiments:
        return existing
    return invariants_of(request.first, _fingerprint(request.first, existing.dataset))


def _fingerprint(config: TrainingConfig, dataset: Mapping[str, Any]) -> str:
    """Return the fingerprint of an experiment's dataset.

    For the study's own metadata file, this is the stored fingerprint, which workers verify later.
    """
    if os.path.realpath(config.metadata_path) == os.path.realpath(dataset["metadata_path"]):
        return str(dataset["fingerprint"])
    return open_pixel_cache(config.metadata_path, [config.train_split, config.val_split]).fingerprint
