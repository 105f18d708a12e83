"""A search with SMAC3's multi-fidelity facade: Hyperband with a random forest, in the same space."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from search_comparison.tasks import Problem
from search_comparison.trainings import Trainings
from search_spaces import Choices, Domain, IntRange, Parameter, SearchSpace, TrainingConfig


def search_with_smac(problem: Problem, trainings: Trainings, seed: int) -> None:
    """Search until the budget is used up; a trial that is promoted continues its training.

    The presets are trained to the end and told to SMAC first.
    """
    from smac import MultiFidelityFacade, Scenario
    from smac.intensifier.hyperband_utils import get_n_trials_for_hyperband_multifidelity
    from smac.runhistory.dataclasses import TrialInfo, TrialValue

    space, longest = configuration_space(problem.space, seed), problem.start.num_epochs
    # SMAC draws a quarter of its trials at random before it uses its model, so it needs their number in advance.
    left = trainings.budget - longest * len(problem.presets)
    trials = get_n_trials_for_hyperband_multifidelity(left, 1, longest, print_summary=False)
    scenario = Scenario(
        space,
        deterministic=True,
        seed=seed,
        min_budget=1,
        max_budget=longest,
        n_trials=trials,
        output_directory=trainings.folder / "smac",
    )
    # `ask` and `tell` do not call the function, but the facade checks its arguments.
    smac = MultiFidelityFacade(scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=False)
    # SMAC samples its first Hyperband round before it gets the presets, which would otherwise be part of that round.
    info = smac.ask()
    for preset in problem.presets.values():
        config = to_smac(space, problem, preset)
        value = trainings.run(preset).best
        told = TrialInfo(config, seed=info.seed, budget=float(longest))
        smac.tell(told, TrialValue(cost=1.0 - value))
    while True:
        result = trainings.run(to_training(problem, info.config), partial(_is_before, round(info.budget)))
        smac.tell(info, TrialValue(cost=1.0 - result.best))
        info = smac.ask()


def _is_before(last: int, epoch: int, value: float) -> bool:
    return epoch < last


def configuration_space(space: SearchSpace, seed: int) -> Any:
    """Return the search space with its conditions as a `ConfigSpace.ConfigurationSpace`."""
    from ConfigSpace import AndConjunction, ConfigurationSpace, InCondition

    result = ConfigurationSpace(seed=seed)
    for parameter in space:
        child = _hyperparameter(parameter)
        result.add(child)
        conditions = [InCondition(child, result[name], list(values)) for name, values in parameter.when.items()]
        if conditions:
            result.add(conditions[0] if len(conditions) == 1 else AndConjunction(*conditions))
    return result


def _hyperparameter(parameter: Parameter) -> Any:
    from ConfigSpace import Categorical, Float, Integer

    domain = parameter.domain
    if isinstance(domain, Choices):
        return Categorical(parameter.name, domain.values)
    if isinstance(domain, IntRange):  # ConfigSpace has no steps, so it gets the number of steps from the lowest value
        return Integer(parameter.name, (0, (domain.high - domain.low) // domain.step))
    return Float(parameter.name, (domain.low, domain.high), log=domain.log)


def to_smac(space: Any, problem: Problem, preset: TrainingConfig) -> Any:
    """Return the parameters of a preset as a `ConfigSpace.Configuration`."""
    from ConfigSpace import Configuration

    values = {}
    for item in problem.space.active(preset):
        value = getattr(preset, item.name)
        is_int = isinstance(item.domain, IntRange)
        values[item.name] = (value - item.domain.low) // item.domain.step if is_int else value
    return Configuration(space, values)


def to_training(problem: Problem, config: Any) -> TrainingConfig:
    """Return the training settings of a `ConfigSpace.Configuration`."""
    values = dict(config)
    settings = {item.name: _to_value(item.domain, values[item.name]) for item in problem.space if item.name in values}
    return problem.adjusted(replace(problem.start, **settings))


def _to_value(domain: Domain, value: Any) -> Any:
    """Return a value of ConfigSpace, which may be of a NumPy type, as a value of the search space."""
    if isinstance(domain, Choices):
        return next(choice for choice in domain.values if choice == value)
    return domain.low + int(value) * domain.step if isinstance(domain, IntRange) else float(value)
