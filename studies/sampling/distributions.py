"""Convert the search space to Optuna distributions, and suggest the parameters of a trial."""

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
    """Return the Optuna distribution with the same values."""
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, IntRange):
        # The last value on the grid; with another one, Optuna would warn at every suggestion.
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

    Each condition is evaluated after the preceding parameters are suggested. All values of a preset are fixed, so its
    configuration is returned unchanged; values outside the search space do not become parameters.

    Args:
        trial: The claimed trial; values suggested before an interruption are kept.
        space: The study's search space.
        config: A preset's configuration, or the start configuration of a search trial.
        adjust: Returns a configuration with dependent settings adjusted. It is applied to the result and before a
            condition is evaluated, but not to the configuration that collects the suggested values.

    Returns:
        The configuration with the suggested values, adjusted.
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
    """Return a copy of a preset's trial with its values as parameters of a space; other trials unchanged.

    A preset that was trained before the study's search space was fixed has no parameters in the database.
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
    # With decimals, as in Optuna: in binary, 0.1 + 2 * 0.1 is not 0.3.
    low, high, step = (Decimal(str(number)) for number in (domain.low, domain.high, domain.step))
    return float(low + (high - low) // step * step)
