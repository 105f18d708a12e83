"""Suggestions as a pure function of the study's seed, the trial's number, the parameter and the history.

A sampler that lives as long as its process loses the state of its random generator at a restart. Here each draw asks a
fresh sampler, seeded from what identifies the draw, about a copy of the history. So an interrupted study proposes what
the uninterrupted one would have.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.space.space import SearchSpace
from studies.sampling.distributions import to_distribution, with_parameters
from studies.storage.optuna_private import quiet_gaussian_process
from studies.trials.record import KIND, TrialKind
from studies.trials.records import trials_and_records

# Search trials that are drawn at random before a model of the history is trusted; presets come on top of them.
RANDOM_SEARCH_TRIALS = 5
# Samplers ignore failed trials, and waiting ones have no parameters yet.
_VISIBLE_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class SamplerName(StrEnum):
    """Which sampler draws the search trials."""

    TPE = "tpe"
    RANDOM = "random"
    GP = "gp"


class StatelessSampler(BaseSampler):
    """Draws with a fresh sampler each time, which knows nothing but its seed and the study's history.

    Parameters without conditions are drawn jointly, conditional ones independently of each other. The history has this
    package's trials only. A trial that another worker resumes in the midst of its draws gets the rest of them from the
    history of then.
    """

    def __init__(self, name: SamplerName, seed: int, study: optuna.Study, space: Callable[[], SearchSpace]) -> None:
        """Create the sampler.

        Args:
            name: Which of Optuna's samplers draws.
            seed: The study's seed.
            study: The study whose history counts. The one that Optuna hands to a sampler may be a part of it: under
                Hyperband, the trials of one bracket.
            space: Returns the study's search space, which new presets may widen.
        """
        self._name = name
        self._seed = seed
        self._study = study
        self._space = space
        self._history: _History | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn jointly.

        TPE gets what the space declares: otherwise a preset that the space cannot hold whole, or a range that was
        widened, would keep a parameter out of the joint draw for good. A Gaussian process needs every parameter in
        every trial, so it gets what they share.
        """
        if self._name is SamplerName.GP:
            history = self._history_of(trial)
            return self._fresh(history, "joint").infer_relative_search_space(history.study, history.trial)
        return {item.name: to_distribution(item.domain) for item in self._space() if not item.when}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the joint draw."""
        history = self._history_of(trial)
        return self._fresh(history, "joint").sample_relative(history.study, history.trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the draw of one parameter."""
        history = self._history_of(trial)
        sampler = self._fresh(history, param_name)
        return sampler.sample_independent(history.study, history.trial, param_name, param_distribution)

    def _history_of(self, trial: FrozenTrial) -> _History:
        """Return the history as it was at the trial's first draw, for all of its draws."""
        if self._history is None or self._history.number != trial.number:
            self._history = _History.of(self._study, trial.number, self._space())
        return self._history

    def _fresh(self, history: _History, draw: str) -> BaseSampler:
        seed = _mixed(self._seed, history.number, draw)
        return _MAKERS[self._name](seed, history.presets + RANDOM_SEARCH_TRIALS)


@dataclass(frozen=True)
class _History:
    """What a trial's draws may see, as a study in memory.

    Attributes:
        number: The trial's number in the real study.
        study: The other trials in the order of their numbers, then the trial itself, without parameters.
        trial: The trial in `study`.
        presets: The presets before it that did not fail. They are no random sample of the space, so the model waits
            for as many trials more.
    """

    number: int
    study: optuna.Study
    trial: FrozenTrial
    presets: int

    @classmethod
    def of(cls, study: optuna.Study, number: int, space: SearchSpace) -> _History:
        """Copy the history that the trial of a number may see."""
        trials = [with_parameters(trial, record, space) for trial, record in trials_and_records(study)]
        memory = optuna.create_study(direction=study.direction)
        for trial in trials:
            if trial.state in _VISIBLE_STATES and trial.number != number:
                with contextlib.suppress(ValueError):  # Optuna refuses it, for example for a value beside its range
                    memory.add_trial(_bare(trial))
        memory.add_trial(create_trial(state=TrialState.RUNNING))
        earlier = [trial for trial in trials if trial.number < number and trial.state != TrialState.FAIL]
        presets = sum(trial.user_attrs[KIND] == TrialKind.PRESET for trial in earlier)
        return cls(number, memory, memory.get_trials(deepcopy=False)[-1], presets)


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with no more than samplers look at: attributes would make copying it several times as slow."""
    reports, last = trial.intermediate_values, trial.last_step
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if last is None else {last: reports[last]},
    )


def _mixed(seed: int, number: int, draw: str) -> int:
    """Return a seed, 0 to 2**32 - 1, for one draw of one trial."""
    text = json.dumps([seed, number, draw]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def _gaussian_process(seed: int, startup: int) -> BaseSampler:
    quiet_gaussian_process()
    return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


_MAKERS: Mapping[SamplerName, Callable[[int, int], BaseSampler]] = {
    SamplerName.TPE: lambda seed, startup: TPESampler(seed=seed, n_startup_trials=startup),
    SamplerName.RANDOM: lambda seed, startup: RandomSampler(seed=seed),
    SamplerName.GP: _gaussian_process,
}
