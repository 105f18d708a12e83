"""A sampler whose suggestions depend only on the study's seed, the trial's number, the parameter and the history.

Optuna's samplers lose the state of their random generator when the process exits. Here, each sampling call uses a copy
of the visible history and a new sampler, which is seeded from the study's seed, the trial's number and the parameter.
So an interrupted or parallel study samples the same parameters as an uninterrupted study with one worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.space.space import SearchSpace
from studies.sampling.distributions import to_distribution, with_parameters
from studies.sampling.prior import Observation
from studies.sampling.visible_history import visible_trials
from studies.storage.optuna_private import NarrowTPESampler, hide_gp_warnings
from studies.trials.record import TrialKind

# Before the sampler uses its model, the visible trials must include this number of trials, presets included, and this
# number of search trials, which are random: presets alone may leave whole branches of the search space untried.
STARTUP_TRIALS = 5
RANDOM_SEARCH_TRIALS = 2


class SamplerName(StrEnum):
    """The name of a sampler."""

    TPE = "tpe"
    RANDOM = "random"
    GP = "gp"


class StatelessSampler(BaseSampler):
    """A sampler that creates a new Optuna sampler for each call, from a seed and the trial's visible history only.

    Parameters without conditions are sampled jointly, conditional parameters independently.
    """

    def __init__(
        self,
        name: SamplerName,
        seed: int,
        parallelism: int,
        space: Callable[[], SearchSpace],
        prior: Sequence[Observation] = (),
    ) -> None:
        """Create the sampler.

        Args:
            name: The Optuna sampler to use.
            seed: The study's seed.
            parallelism: The study's parallelism, which determines the visible history.
            space: Function that returns the study's search space, which new presets may widen.
            prior: The observations of the prior, which precede the visible history.
        """
        self._name = name
        self._seed = seed
        self._parallelism = parallelism
        self._space = space
        self._prior = prior
        self._history: _History | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters to sample jointly.

        For TPE, these are all parameters without conditions. Optuna would exclude a parameter for the rest of the study
        if a preset has a setting outside the space or a range was widened. The GP sampler needs a value of every
        parameter in every trial, so for this sampler, these are the parameters that all trials share.
        """
        if self._name is SamplerName.GP:
            history = self._history_of(study, trial)
            return self._new_sampler(history, "joint").infer_relative_search_space(history.study, history.trial)
        return {item.name: to_distribution(item.domain) for item in self._space() if not item.when}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample the parameters of `search_space` jointly; return their values, keyed by name."""
        history = self._history_of(study, trial)
        return self._new_sampler(history, "joint").sample_relative(history.study, history.trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter independently of the others."""
        history = self._history_of(study, trial)
        sampler = self._new_sampler(history, param_name)
        return sampler.sample_independent(history.study, history.trial, param_name, param_distribution)

    def _history_of(self, study: optuna.Study, trial: FrozenTrial) -> _History:
        """Return the history for all sampling calls of a trial: a copy made at its first call."""
        if self._history is None or self._history.number != trial.number:
            self._history = _History.of(study, trial.number, self._parallelism, self._space(), self._prior)
        return self._history

    def _new_sampler(self, history: _History, purpose: str) -> BaseSampler:
        seed = _derived_seed(self._seed, history.number, purpose)
        return _FACTORIES[self._name](seed, history.startup)


@dataclass(frozen=True)
class _History:
    """The visible history of a trial as an in-memory study.

    Attributes:
        number: The trial's number in the original study.
        study: The prior, the visible trials in order of trial number, then the trial itself, without parameters.
        trial: The trial in `study`.
        startup: Number of trials, those of the prior included, before the sampler uses its model.
    """

    number: int
    study: optuna.Study
    trial: FrozenTrial
    startup: int

    @classmethod
    def of(
        cls, study: optuna.Study, number: int, parallelism: int, space: SearchSpace, prior: Sequence[Observation]
    ) -> _History:
        """Copy the history for the trial with this number."""
        memory = optuna.create_study(direction=study.direction)
        presets = 0
        for item in prior:
            with contextlib.suppress(ValueError):
                memory.add_trial(item.as_trial(space))
        for trial, record in visible_trials(study, number, parallelism):
            presets += record.kind is TrialKind.PRESET
            with contextlib.suppress(ValueError):  # Optuna rejects a trial, for example with a value out of range
                memory.add_trial(_without_attributes(with_parameters(trial, record, space)))
        memory.add_trial(create_trial(state=TrialState.RUNNING))
        # The prior takes the place of the random search trials.
        startup = max(STARTUP_TRIALS, presets + RANDOM_SEARCH_TRIALS)
        return cls(number, memory, memory.get_trials(deepcopy=False)[-1], startup)


def _without_attributes(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy of a trial with only the data that samplers use, because attributes make later copies slow."""
    reports, last = trial.intermediate_values, trial.last_step
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if last is None else {last: reports[last]},
    )


def _derived_seed(seed: int, number: int, purpose: str) -> int:
    """Return a seed, 0 to 2**32 - 1, for one sampling call of one trial; `purpose` is "joint" or a parameter."""
    text = json.dumps([seed, number, purpose]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def _gp_sampler(seed: int, startup: int) -> BaseSampler:
    hide_gp_warnings()
    return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


_FACTORIES: Mapping[SamplerName, Callable[[int, int], BaseSampler]] = {
    SamplerName.TPE: lambda seed, startup: NarrowTPESampler(seed=seed, n_startup_trials=startup),
    SamplerName.RANDOM: lambda seed, startup: RandomSampler(seed=seed),
    SamplerName.GP: _gp_sampler,
}
