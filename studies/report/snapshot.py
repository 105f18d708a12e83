"""The content of a report: a study at one moment, and copies of it in memory for Optuna's plots."""

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
        study: The study itself; it is only read.
        folder: Its folder.
        read_epochs: Returns a trial's epochs, every figure by name, given the trial's name.
        status: How the study stands.
        trials: Its trials by number, also those that are not this program's.
        records: What is known of this program's trials, by number.
        space: What its search varies, or would vary.
        invariants: What all of its trials agree on.
        taken: When it was read, local time.
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
        """Name of the metric that the study optimizes."""
        return self.invariants.monitor

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        """Return the names of trials as plots take them: Plotly reads text as a kind of HTML."""
        return [self._names.get(int(number), f"trial {number}") for number in numbers]

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: html.escape(record.experiment_name) for number, record in self.records.items()}

    @cached_property
    def winner(self) -> TrialRecord | None:
        """The best completed trial, as the results file has it; None if there is none."""
        return next(iter(best_records(self.records.values())), None)

    def best_first(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials that have a finite value, the best first, of equals the lower number."""
        return by_value(filter(has_value, trials), lambda trial: trial.value, maximize=self.invariants.mode == "max")

    @cached_property
    def plot_trials(self) -> list[FrozenTrial]:
        """The trials for plots, with their numbers and without attributes.

        Optuna's plots show all attributes of a trial, error messages and paths among them. A trial of another program
        becomes one that never started, so that the other trials keep their numbers. A diverged trial, which Optuna
        knows as pruned for the sampler's sake, is a failed one here as everywhere else.
        """
        return [self._plotted(trial) for trial in self.trials]

    def _plotted(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number not in self.records:
            return _never_started()
        if self.records[trial.number].phase is TrialPhase.FAILED:
            return _bare(trial, TrialState.FAIL, None)
        return _bare(trial, trial.state, trial.value)

    def settings_of(self, record: TrialRecord) -> dict[str, Any]:
        """Return a trial's values of the settings that the search varies, those that its space cannot hold included."""
        if record.kind is TrialKind.SEARCH:
            return self.trials[record.number].params
        config = record.training_config
        return {item.name: getattr(config, item.name) for item in self.space.active(config)}

    @cached_property
    def plot_study(self) -> optuna.Study:
        """A copy of the study in memory."""
        return self.study_of(self.plot_trials)

    @cached_property
    def counted_study(self) -> optuna.Study:
        """A copy in which trials that were pruned or diverged are completed ones with their best value.

        Bad trials are the ones that are pruned, so completed ones alone would hide which settings make a trial bad.
        """
        return self.study_of(
            [
                _bare(trial, TrialState.COMPLETE, trial.value) if trial.number in self.cut_short else plotted
                for trial, plotted in zip(self.trials, self.plot_trials, strict=True)
            ]
        )

    @cached_property
    def cut_short(self) -> frozenset[int]:
        """The numbers of the trials that were pruned or diverged after they had reached a finite value."""
        pruned = [trial for trial in self.trials if trial.state == TrialState.PRUNED and has_value(trial)]
        return frozenset(trial.number for trial in pruned if trial.number in self.records)

    def study_of(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        """Return a study in memory that has these trials, numbered in their order."""
        study = optuna.create_study(direction=self.invariants.direction)
        for trial in trials:
            try:
                study.add_trial(trial)
            except ValueError:
                # Made by hand: a value outside its range, an end without a start.
                study.add_trial(_never_started())
        return study


def take_snapshot(study: optuna.Study, folder: OutputFolder, read_epochs: ReadEpochs) -> Snapshot:
    """Read a study once; see `Snapshot`."""
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
    """Return whether a trial has ended with a finite value."""
    return trial.state.is_finished() and trial.value is not None and math.isfinite(trial.value)


def _bare(trial: FrozenTrial, state: TrialState, value: float | None) -> FrozenTrial:
    bare = copy.copy(trial)
    bare.state, bare.value = state, value
    bare.user_attrs, bare.system_attrs = {}, {}
    return bare


def _never_started() -> FrozenTrial:
    return create_trial(state=TrialState.WAITING)
