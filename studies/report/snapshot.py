"""The data of a report: a study at one moment, and in-memory copies of the study for Optuna's plots."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.space.space import SearchSpace
from studies.sampling.distributions import with_parameters
from studies.status.reader import study_status
from studies.status.status import StudyStatus
from studies.storage.output_folder import OutputFolder
from studies.study.invariants import StudyInvariants
from studies.study.lifecycle import study_invariants
from studies.study.presets import study_space
from studies.trials.record import TrialKind, TrialPhase, TrialRecord, own_records
from studies.trials.results import best_records, by_value

Epochs = Sequence[Mapping[str, float]]
ReadEpochs = Callable[[str], Epochs]


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment.

    Attributes:
        study: The study; it is not changed.
        folder: The study's output folder.
        read_epochs: Given a trial's name, returns the metrics of each finished epoch, keyed by metric name.
        status: The status of the study.
        trials: All trials in order of number, including trials that another program created.
        records: The records of the trials that this program created, keyed by trial number.
        space: The search space of the study; the default search space if the study has presets only.
        invariants: The fixed settings of the study.
        taken: Local time at which the study was read.
    """

    study: optuna.Study
    folder: OutputFolder
    read_epochs: ReadEpochs
    status: StudyStatus
    trials: tuple[FrozenTrial, ...]
    records: Mapping[int, TrialRecord]
    space: SearchSpace
    invariants: StudyInvariants
    taken: datetime

    @property
    def metric(self) -> str:
        """The name of the metric that the study optimizes."""
        return self.invariants.monitor

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        """Return the names of the trials with these numbers, escaped because Plotly interprets HTML tags in texts."""
        return [self._names.get(int(number), f"trial {number}") for number in numbers]

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: html.escape(record.experiment_name) for number, record in self.records.items()}

    @cached_property
    def winner(self) -> TrialRecord | None:
        """The best completed trial by accuracy, as in the results file; None if no trial has completed."""
        return next(iter(best_records(self.records.values())), None)

    def best_first(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return the finished trials with a finite value, best first; of equal values, the lower number comes first."""
        return by_value(filter(has_value, trials), lambda trial: trial.value, maximize=self.invariants.mode == "max")

    @cached_property
    def plot_trials(self) -> list[FrozenTrial]:
        """The trials for Optuna's plots, in order of number and without attributes.

        Attributes are removed because Optuna's plots show all of them, including error messages and paths. A trial that
        another program created is replaced by a waiting trial, so that the other trials keep their numbers. A diverged
        trial, which the study stores as pruned for the sampler, is failed here, as in all other outputs.
        """
        return [self._plotted(trial) for trial in self.trials]

    def _plotted(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number not in self.records:
            return _waiting_trial()
        if self.records[trial.number].phase is TrialPhase.FAILED:
            return _without_attributes(trial, TrialState.FAIL, None)
        return _without_attributes(trial, trial.state, trial.value)

    def settings_of(self, record: TrialRecord) -> dict[str, Any]:
        """Return a trial's values of the settings in the search space, keyed by setting name.

        Settings whose condition the trial does not meet are omitted. A preset's values may be outside the search space.
        """
        if record.kind is TrialKind.SEARCH:
            return self.trials[record.number].params
        config = record.training_config
        return {item.name: getattr(config, item.name) for item in self.space.active(config)}

    @cached_property
    def plot_study(self) -> optuna.Study:
        """An in-memory copy of the study with `plot_trials` as its trials."""
        return self.study_of(self.plot_trials)

    @cached_property
    def settings_study(self) -> optuna.Study:
        """An in-memory copy of the study in which pruned and diverged trials are completed with their best value.

        Bad trials are pruned, so completed trials alone would hide which settings make a trial bad.
        """
        return self.study_of(
            [
                _without_attributes(trial, TrialState.COMPLETE, trial.value)
                if trial.number in self.pruned_or_diverged
                else plotted
                for trial, plotted in zip(self.trials, self.plot_trials, strict=True)
            ]
        )

    @cached_property
    def pruned_or_diverged(self) -> frozenset[int]:
        """The numbers of the pruned and diverged trials that have a finite value; Optuna stores both as pruned."""
        pruned = [trial for trial in self.trials if trial.state == TrialState.PRUNED and has_value(trial)]
        return frozenset(trial.number for trial in pruned if trial.number in self.records)

    def study_of(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        """Return an in-memory study with these trials, numbered from 0 in the given order."""
        study = optuna.create_study(direction=self.invariants.direction)
        for trial in trials:
            try:
                study.add_trial(trial)
            except ValueError:
                # A trial created by hand can have a parameter outside its range, or an end time without a start time.
                study.add_trial(_waiting_trial())
        return study


def take_snapshot(study: optuna.Study, folder: OutputFolder, read_epochs: ReadEpochs) -> Snapshot:
    """Read a study into a `Snapshot`."""
    status = study_status(
        study, folder, lambda trial_dir: [epoch["epoch_seconds"] for epoch in read_epochs(trial_dir.name)]
    )
    trials, space = study.get_trials(deepcopy=False), study_space(study)
    records = {record.number: record for record in own_records(study)}
    return Snapshot(
        study=study,
        folder=folder,
        read_epochs=read_epochs,
        status=status,
        trials=tuple(
            with_parameters(trial, records[trial.number], space) if trial.number in records else trial
            for trial in trials
        ),
        records=records,
        space=space,
        invariants=study_invariants(study),
        taken=datetime.now().astimezone(),
    )


def has_value(trial: FrozenTrial) -> bool:
    """Return whether a trial is finished and has a finite value."""
    return trial.state.is_finished() and trial.value is not None and math.isfinite(trial.value)


def _without_attributes(trial: FrozenTrial, state: TrialState, value: float | None) -> FrozenTrial:
    stripped = copy.copy(trial)
    stripped.state, stripped.value = state, value
    stripped.user_attrs, stripped.system_attrs = {}, {}
    return stripped


def _waiting_trial() -> FrozenTrial:
    return create_trial(state=TrialState.WAITING)
