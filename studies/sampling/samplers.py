"""Suggestions as a pure function of the study's seed, the trial's number, the parameter and the history.

A sampler that lives as long as its process forgets at a restart where its random sequence was. Here each draw has a
fresh sampler, seeded from what is known of the draw, so a study that was interrupted proposes what the uninterrupted
one would have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from search_spaces.space.space import SearchSpace
from studies.sampling.distributions import to_distribution
from studies.storage.optuna_private import quiet_gaussian_process, stored_joint_draw, trials_of_this_draw
from studies.trials.record import KIND, TrialKind

# Search trials that are drawn at random before a model of the history is trusted; presets come on top of them.
RANDOM_SEARCH_TRIALS = 5


class SamplerName(StrEnum):
    """Which sampler draws the search trials."""

    TPE = "tpe"
    RANDOM = "random"
    GP = "gp"


class StatelessSampler(BaseSampler):
    """Draws with a fresh sampler each time, which knows nothing but its seed and the study's history.

    The parameters that count in every trial are drawn jointly; the conditional ones each for itself.
    """

    def __init__(self, name: SamplerName, seed: int, space: Callable[[], SearchSpace]) -> None:
        """Take which sampler draws, the study's seed, and who tells its search space: new presets may widen it."""
        self._name = name
        self._seed = seed
        self._space = space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn jointly.

        TPE gets what the space declares: a preset that the space cannot hold whole would otherwise keep its missing
        parameter out of the joint draw for ever, and so would a range that was widened. A Gaussian process needs every
        parameter in every trial, so it gets what they share.
        """
        if self._name is SamplerName.GP:
            return self._fresh(study, trial, "joint").infer_relative_search_space(study, trial)
        return {item.name: to_distribution(item.domain) for item in self._space() if not item.when}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the joint draw; the one that an interrupted process has stored already, if there is one."""
        stored = stored_joint_draw(trial)
        if stored:
            return {name: value for name, value in stored.items() if name in search_space}
        return self._fresh(study, trial, "joint").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the draw of one parameter."""
        sampler = self._fresh(study, trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _fresh(self, study: optuna.Study, trial: FrozenTrial, what: str) -> BaseSampler:
        return _MAKERS[self._name](_mixed(self._seed, trial.number, what), _startup_trials(study, trial.number))


def _mixed(seed: int, number: int, what: str) -> int:
    """Return a seed, 0 to 2**32 - 1, for one draw of one trial."""
    text = json.dumps([seed, number, what]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def _startup_trials(study: optuna.Study, number: int) -> int:
    """Return how many trials must have ended before a model is fitted: presets are no random sample of the space."""
    earlier = trials_of_this_draw(study)[:number]
    # Failed trials are no part of the history that samplers look at.
    presets = [
        trial for trial in earlier if trial.user_attrs.get(KIND) == TrialKind.PRESET and trial.state != TrialState.FAIL
    ]
    return len(presets) + RANDOM_SEARCH_TRIALS


def _gaussian_process(seed: int, startup: int) -> BaseSampler:
    quiet_gaussian_process()
    return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


_MAKERS: Mapping[SamplerName, Callable[[int, int], BaseSampler]] = {
    SamplerName.TPE: lambda seed, startup: TPESampler(seed=seed, n_startup_trials=startup),
    SamplerName.RANDOM: lambda seed, startup: RandomSampler(seed=seed),
    SamplerName.GP: _gaussian_process,
}
