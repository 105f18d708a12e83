"""Work for a study that has begun: checked, then added, without training and without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from search_spaces import ConfigurationError, SearchSpace, TrainingConfig
from studies import (
    OutputFolder,
    PresetState,
    SearchRequest,
    StudyInvariants,
    add_search_trials,
    enqueue_presets,
    latest_records,
    refuse_changed_presets,
    refuse_other_invariants,
    refuse_other_search,
    search_budget,
    study_invariants,
)
from tuner.data.pixel_cache import open_pixel_cache
from tuner.session.study_setup import invariants_of, join_study


@dataclass(frozen=True)
class EnqueueResult:
    """What was added to a study.

    Attributes:
        added: The experiments that it did not have, by name.
        known: Those that it had already, by name.
        search_trials: Search trials that it is to have now, however far they are.
    """

    added: Mapping[str, PresetState]
    known: Mapping[str, PresetState]
    search_trials: int


@dataclass(frozen=True)
class EnqueueRequest:
    """Work to be added to a study.

    Attributes:
        experiments: Presets by name; those that the study has already stay as they are.
        file_order: All names of the file that they come from.
        space: What the study is expected to vary; None for no expectation.
        search: Search trials, and how they are expected to be drawn and judged.
        file_remarks: What is senseless or unused in the file of the experiments, a line each.
    """

    experiments: Mapping[str, TrainingConfig] = field(default_factory=dict)
    file_order: Sequence[str] = ()
    space: SearchSpace | None = None
    search: SearchRequest = field(default_factory=SearchRequest)
    file_remarks: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is senseless or unused in the files, a line each."""
        space = () if self.space is None else self.space.warnings
        return (*self.file_remarks, *(f"warning: {text}" for text in space))

    def check(self, study: optuna.Study, folder: OutputFolder) -> None:
        """Refuse what the study cannot take; nothing is changed.

        Raises:
            ConfigurationError: Something differs from what the study was begun with; every difference is told.
            DataLoaderError: The experiments' dataset is not where the study's was, and missing or damaged.
        """
        invariants = self._invariants(study_invariants(study))
        checks: list[Callable[[], object]] = [
            lambda: refuse_other_invariants(study, folder, invariants),
            lambda: refuse_changed_presets(study, self.experiments, self.space),
            lambda: refuse_other_search(study, self.search),
        ]
        problems: list[str] = []
        for check in checks:
            try:
                check()
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            raise ConfigurationError(problems)

    def add(self, study: optuna.Study, folder: OutputFolder, storage_url: str) -> EnqueueResult:
        """Add it.

        Args:
            study: The study, opened for reading.
            folder: Its folder.
            storage_url: Where it is kept.

        Raises:
            ConfigurationError, DataLoaderError: As `check`; nothing was added.
        """
        self.check(study, folder)
        before = {record.experiment_name for record in latest_records(study)}
        joined = join_study(storage_url, study.study_name, folder, self._invariants(study_invariants(study)))
        states = enqueue_presets(joined, folder, self.experiments, self.space, file_order=self.file_order)
        if self.search.more:
            add_search_trials(joined, folder, self.search)
        return EnqueueResult(
            added={name: state for name, state in states.items() if name not in before},
            known={name: state for name, state in states.items() if name in before},
            search_trials=search_budget(joined),
        )

    def _invariants(self, begun: StudyInvariants) -> StudyInvariants:
        if not self.experiments:
            return begun
        first = next(iter(self.experiments.values()))
        return invariants_of(first, _fingerprint(first, begun.dataset))


def _fingerprint(config: TrainingConfig, begun: Mapping[str, Any]) -> str:
    """Return the digest of an experiment's dataset: where it is the study's own, those who train it will check it."""
    if os.path.realpath(config.metadata_path) == os.path.realpath(begun["metadata_path"]):
        return str(begun["fingerprint"])
    return open_pixel_cache(config.metadata_path, [config.train_split, config.val_split]).fingerprint
