"""Optuna distributions for the domains of the search space, and the parameters of a trial."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from decimal import Decimal
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from search_spaces.space.space import Choices, Domain, FloatRange, IntRange, SearchSpace
from search_spaces.training_config import TrainingConfig
from studies.trials.record import KIND, TrialKind, TrialRecord

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution


def to_distribution(domain: Domain) -> Distribution:
    """Convert a domain of the search space to the Optuna distribution with the same values."""
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, IntRange):
        # The last value on the grid, because Optuna warns about any other upper bound at every suggestion.
        high = domain.low + (domain.high - domain.low) // domain.step * domain.step
        return IntDistribution(domain.low, high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, _last_on_grid(domain), log=domain.log, step=domain.step)


def suggest_all(
    trial: Trial,
    space: SearchSpace,
    config: TrainingConfig,
    *,
    adjust: Callable[[TrainingConfig], TrainingConfig] = lambda config: config,
) -> TrainingConfig:
    """Suggest all active parameters of a trial, before its first report.

    Each condition is evaluated after the preceding parameters have been suggested. All settings of a preset are fixed,
    so its configuration is returned unchanged; settings outside the search space do not become parameters.

    Args:
        trial: The claimed trial; parameters that were suggested before an interruption are kept.
        space: The study's search space.
        config: A preset's configuration, or the base configuration of a search trial.
        adjust: Function that returns a configuration with adjusted dependent settings. It is applied before each
            condition is evaluated and to the result, but not to the configuration that collects the parameters.

    Returns:
        The configuration with the suggested parameters, adjusted.
    """
    is_preset = trial.user_attrs.get(KIND) == TrialKind.PRESET
    for parameter in space:
        if is_preset and not parameter.domain.contains(getattr(config, parameter.name)):
            continue
        if parameter.is_active(adjust(config)):
            value = _suggest(trial, parameter.name, to_distribution(parameter.domain))
            config = replace(config, **{parameter.name: value})
    return adjust(config)


def with_parameters(trial: FrozenTrial, record: TrialRecord, space: SearchSpace) -> FrozenTrial:
    """Return a copy of a preset's trial whose settings in a search space are Optuna parameters.

    A preset that was trained before the study's search space was fixed has no parameters in the database. A search
    trial is returned unchanged.
    """
    if record.kind is not TrialKind.PRESET:
        return trial
    config = record.training_config
    inside = [item for item in space.active(config) if item.domain.contains(getattr(config, item.name))]
    trial = copy(trial)
    trial.params = {item.name: getattr(config, item.name) for item in inside}
    trial.distributions = {item.name: to_distribution(item.domain) for item in inside}
    return trial


def _suggest(trial: Trial, name: str, distribution: Distribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    low, high, step, log = distribution.low, distribution.high, distribution.step, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)


def _last_on_grid(domain: FloatRange) -> float:
    if domain.step is None:
        return domain.high
    # Decimal arithmetic, as in Optuna: in binary, 0.1 + 2 * 0.1 is not 0.3.
    low, high, step = (Decimal(str(number)) for number in (domain.low, domain.high, domain.step))
    return float(low + (high - low) // step * step)
