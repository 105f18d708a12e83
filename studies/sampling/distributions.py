"""From the search space to Optuna: distributions, and the suggestions of one trial."""

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
    """Return Optuna's distribution over the same values."""
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if isinstance(domain, IntRange):
        # The last value on the grid, found here since Optuna would warn about it at every suggestion.
        high = domain.low + (domain.high - domain.low) // domain.step * domain.step
        return IntDistribution(domain.low, high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, _last_on_grid(domain), log=domain.log, step=domain.step)


def suggest_all(
    trial: Trial,
    space: SearchSpace,
    config: TrainingConfig,
    *,
    settle: Callable[[TrainingConfig], TrainingConfig] = lambda config: config,
) -> TrainingConfig:
    """Suggest every parameter that counts for a trial, before it reports anything.

    Conditions are evaluated as the values come in. A preset has all of its values fixed, and those that the space
    cannot hold become no parameters: the result for a preset is its own configuration.

    Args:
        trial: The claimed trial; values suggested before an interruption are kept.
        space: The study's space.
        config: A preset's configuration, or what a search trial starts from.
        settle: Returns a configuration with the settings that follow from others; conditions and the result see
            it so, the suggestions build on what was suggested.

    Returns:
        The configuration with the suggested values, settled.
    """
    is_preset = trial.user_attrs.get(KIND) == TrialKind.PRESET
    for parameter in space:
        if is_preset and not parameter.domain.contains(getattr(config, parameter.name)):
            continue
        if parameter.is_active(settle(config)):
            value = _suggest(trial, parameter.name, to_distribution(parameter.domain))
            config = replace(config, **{parameter.name: value})
    return settle(config)


def with_parameters(trial: FrozenTrial, record: TrialRecord, space: SearchSpace) -> FrozenTrial:
    """Return a copy of a preset's trial with its parameters in a space; any other trial unchanged.

    A preset that was trained before the study's space was fixed has no parameters in the database.
    """
    if record.kind is not TrialKind.PRESET:
        return trial
    config = record.training_config
    held = [item for item in space.active(config) if item.domain.contains(getattr(config, item.name))]
    trial = copy(trial)
    trial.params = {item.name: getattr(config, item.name) for item in held}
    trial.distributions = {item.name: to_distribution(item.domain) for item in held}
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
    # In decimals, as Optuna does: 0.1 + 2 * 0.1 is not 0.3 in binary.
    low, high, step = (Decimal(str(number)) for number in (domain.low, domain.high, domain.step))
    return float(low + (high - low) // step * step)
