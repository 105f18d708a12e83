"""The prior of a search: finished trials of earlier studies, from which the sampler learns before the first trial."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.diagnostics.wording import counted
from search_spaces.model_definitions import ModelDefinition, fit_loss
from search_spaces.space.space import SearchSpace
from search_spaces.training_config import STUDY_FIELDS, TrainingConfig, differing_fields
from studies.sampling.distributions import to_distribution

# An observation is clipped if a number is outside its domain by at most this fraction of the range, because the
# objective is still similar there. A configuration to try, for which no value is claimed, is clipped from any distance.
OBSERVATION_MARGIN = 0.1


@dataclass(frozen=True)
class Observation:
    """A finished trial of an earlier study.

    Attributes:
        name: The trial's name in the earlier study.
        is_pruned: Whether the sampler must treat it as pruned; diverged trials are included.
        value: The best value of the monitored metric; None if no epoch finished.
        epoch: The last finished epoch, counted from 1; None if no epoch finished.
        settings: The trial's settings with effect; in a prior, only those that differ from the base settings.
        params: The parameters that the earlier study sampled; in a prior, those of the new search space.
    """

    name: str
    is_pruned: bool
    value: float | None
    epoch: int | None
    settings: Mapping[str, Any]
    params: Mapping[str, Any]

    def as_trial(self, space: SearchSpace) -> FrozenTrial:
        """Return an observation of a prior as a finished trial.

        Raises:
            ValueError: A parameter is not in its distribution.
        """
        return create_trial(
            state=TrialState.PRUNED if self.is_pruned else TrialState.COMPLETE,
            value=None if self.is_pruned else self.value,
            params=dict(self.params),
            distributions={item.name: to_distribution(item.domain) for item in space if item.name in self.params},
            intermediate_values={} if self.epoch is None or self.value is None else {self.epoch: self.value},
        )


@dataclass(frozen=True)
class PriorSource:
    """How a search uses an earlier study.

    Attributes:
        name: Name of the earlier study's output folder or file.
        trials: Number of its finished trials, including those of its own prior.
        used: Number of trials that are observations or, if the values are not comparable, configurations to try.
        clipped: Number of used trials with a number that was moved to the nearest value of the search space.
        dropped: Number of trials that the search space does not contain.
        best_value: Best value of the monitored metric among the used completed trials; None if there is none.
        differences: Why its values are not comparable with those of this study; empty if they are.
        differing_settings: Names of fixed settings with other numbers than in this study.
    """

    name: str
    trials: int
    used: int
    clipped: int
    dropped: int
    best_value: float | None
    differences: tuple[str, ...]
    differing_settings: tuple[str, ...]

    @property
    def text(self) -> str:
        """The number of used trials and their use, for tables."""
        best = "" if self.best_value is None else f" (best {self.best_value:.4f})"
        kind = "configuration" if self.differences else "observation"
        return f"{counted(self.used, kind)} from {self.name}{best}"


@dataclass(frozen=True)
class Prior:
    """The prior of a search.

    Attributes:
        digest: SHA-256 of the earlier studies' trials; "" without earlier studies.
        sources: The earlier studies.
        observations: Trials with comparable values; the sampler learns from them as from trials of this study.
        configurations: Parameters of the first search trials.
    """

    digest: str = ""
    sources: tuple[PriorSource, ...] = ()
    observations: tuple[Observation, ...] = ()
    configurations: tuple[Mapping[str, Any], ...] = ()


class Fit(NamedTuple):
    """A configuration in a search space: its parameters, whether one was clipped, and differing fixed numbers."""

    params: dict[str, Any]
    clipped: bool
    differing_settings: tuple[str, ...]


def fit_to_space(
    config: TrainingConfig,
    sampled: Collection[str],
    space: SearchSpace,
    start: TrainingConfig,
    definitions: Mapping[str, ModelDefinition],
    margin: float = math.inf,
) -> Fit | None:
    """Express a configuration by the parameters of a search space; return None if the space does not contain it.

    The space does not contain a configuration with another choice, with a number too far outside its range, or with
    another fixed setting that is not a number or that the earlier study sampled.

    Args:
        config: The configuration.
        sampled: The names of the settings that the earlier study sampled.
        space: The search space.
        start: The base settings of search trials in this space.
        definitions: The model definitions, keyed by model name.
        margin: How far outside its range a number may be, as a fraction of the range.
    """
    params: dict[str, Any] = {}
    clipped = False
    for item in space.active(config):
        value = getattr(config, item.name)
        nearest = item.domain.clipped(value, margin)
        if nearest is None:
            return None
        clipped = clipped or not item.domain.contains(value)
        params[item.name] = nearest
    new = replace(start, **params)
    new = fit_loss(replace(new, min_lr=min(new.min_lr, new.learning_rate)), definitions)
    ignored = {*STUDY_FIELDS, *space.names, "threads"}
    others = {name: old for name, (old, _) in differing_fields(config, new).items() if name not in ignored}
    if any(isinstance(old, str | bool) or name in sampled for name, old in others.items()):
        return None
    return Fit(params, clipped, tuple(others))
