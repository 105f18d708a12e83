"""The content of a report: a study at one moment, and in-memory copies of it for Optuna's plots."""

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
from studies.trials.ranking import best_records, by_value
from studies.trials.record import TrialKind, TrialPhase, TrialRecord
from studies.trials.records import own_records

Epochs = Sequence[Mapping[str, float]]
ReadEpochs = Callable[[str], Epochs]


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment.

    Attributes:
        study: The study; it is not changed.
        folder: Its output folder.
        read_epochs: Returns the metrics of each epoch of a trial by name, given the trial's name.
        status: Its status.
        trials: Its trials by number, including trials of other programs.
        records: The records of the trials of this program, by number.
        space: Its search space, or the default one for a study of presets only.
        invariants: Its fixed settings.
        taken: When the study was read, local time.
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
        """Return the names of trials for plots, escaped, since Plotly interprets HTML tags in texts."""
        return [self._names.get(int(number), f"trial {number}") for number in numbers]

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: html.escape(record.experiment_name) for number, record in self.records.items()}

    @cached_property
    def winner(self) -> TrialRecord | None:
        """The best completed trial by accuracy, as in the results file; None if there is none."""
        return next(iter(best_records(self.records.values())), None)

    def best_first(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials that have a finite value, the best first; of equal ones the lower number first."""
        return by_value(filter(has_value, trials), lambda trial: trial.value, maximize=self.invariants.mode == "max")

    @cached_property
    def plot_trials(self) -> list[FrozenTrial]:
        """The trials for plots, with their numbers and without attributes.

        Attributes are removed because Optuna's plots show all of them, including error messages and paths. A trial of
        another program is replaced by a waiting one, so that the other trials keep their numbers. A diverged trial is
        stored in Optuna as pruned, for the sampler; here it is failed, as in all other outputs.
        """
        return [self._plotted(trial) for trial in self.trials]

    def _plotted(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number not in self.records:
            return _waiting_trial()
        if self.records[trial.number].phase is TrialPhase.FAILED:
            return _without_attributes(trial, TrialState.FAIL, None)
        return _without_attributes(trial, trial.state, trial.value)

    def settings_of(self, record: TrialRecord) -> dict[str, Any]:
        """Return a trial's values of the settings in the search space, even if a value is outside the space."""
        if record.kind is TrialKind.SEARCH:
            return self.trials[record.number].params
        config = record.training_config
        return {item.name: getattr(config, item.name) for item in self.space.active(config)}

    @cached_property
    def plot_study(self) -> optuna.Study:
        """An in-memory copy of the study."""
        return self.study_of(self.plot_trials)

    @cached_property
    def settings_study(self) -> optuna.Study:
        """An in-memory copy in which pruned and diverged trials are completed with their best value.

        Completed trials alone would hide which settings make a trial bad, since bad trials are pruned.
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
        """The numbers of the trials that were pruned or diverged and have a finite value."""
        pruned = [trial for trial in self.trials if trial.state == TrialState.PRUNED and has_value(trial)]
        return frozenset(trial.number for trial in pruned if trial.number in self.records)

    def study_of(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        """Return an in-memory study of these trials, numbered in their order."""
        study = optuna.create_study(direction=self.invariants.direction)
        for trial in trials:
            try:
                study.add_trial(trial)
            except ValueError:
                # Created by hand: a value outside its range, or an end without a start.
                study.add_trial(_waiting_trial())
        return study


def take_snapshot(study: optuna.Study, folder: OutputFolder, read_epochs: ReadEpochs) -> Snapshot:
    """Read a study and return it as a `Snapshot`."""
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
