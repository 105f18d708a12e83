"""A search with SMAC3's multi-fidelity facade: Hyperband with a random forest, in the same space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from search_comparison.tasks import Problem
from search_comparison.trainings import Trainings
from search_spaces import Choices, IntRange, Parameter, SearchSpace, TrainingConfig

# SMAC draws a quarter of its trials, at most 10 per parameter, at random before it uses its model. It needs the number
# of trials in advance; a trial takes about this many epochs.
EPOCHS_PER_TRIAL = 6


def search_with_smac(problem: Problem, trainings: Trainings, seed: int) -> None:
    """Search until the budget is used up; a trial that is promoted continues its training.

    The presets are trained to the end and told to SMAC first.
    """
    from smac import MultiFidelityFacade, Scenario
    from smac.runhistory.dataclasses import TrialInfo, TrialValue

    space = configuration_space(problem.space, seed)
    scenario = Scenario(
        space,
        deterministic=True,
        seed=seed,
        min_budget=1,
        max_budget=problem.start.num_epochs,
        n_trials=trainings.budget // EPOCHS_PER_TRIAL,
        output_directory=trainings.folder / "smac",
    )
    # `ask` and `tell` do not call the function, but the facade checks its arguments.
    smac = MultiFidelityFacade(scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=False)
    info = smac.ask()
    for preset in problem.presets.values():
        config = to_smac(space, problem, preset)
        value = trainings.run(preset).best
        told = TrialInfo(config, seed=info.seed, budget=float(problem.start.num_epochs))
        smac.tell(told, TrialValue(cost=1.0 - value))
    while True:
        epochs = round(info.budget)
        result = trainings.run(to_training(problem, info.config), lambda epoch, value, last=epochs: epoch < last)
        smac.tell(info, TrialValue(cost=1.0 - result.best))
        info = smac.ask()


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
    if isinstance(domain, IntRange):  # ConfigSpace has no steps, so it gets the number of steps
        return Integer(parameter.name, (domain.low // domain.step, domain.high // domain.step), log=domain.log)
    return Float(parameter.name, (domain.low, domain.high), log=domain.log)


def _step(parameter: Parameter) -> int:
    return parameter.domain.step if isinstance(parameter.domain, IntRange) else 1


def to_smac(space: Any, problem: Problem, preset: TrainingConfig) -> Any:
    """Return the parameters of a preset as a `ConfigSpace.Configuration`."""
    from ConfigSpace import Configuration

    values = {}
    for item in problem.space.active(preset):
        value = getattr(preset, item.name)
        values[item.name] = value // _step(item) if isinstance(item.domain, IntRange) else value
    return Configuration(space, values)


def to_training(problem: Problem, config: Any) -> TrainingConfig:
    """Return the training settings of a `ConfigSpace.Configuration`."""
    values = dict(config)
    settings = {}
    for item in problem.space:
        if item.name in values:
            value = values[item.name]
            if isinstance(item.domain, Choices):
                value = next(choice for choice in item.domain.values if choice == value)  # not NumPy's text type
            else:
                value = int(value) * _step(item) if isinstance(item.domain, IntRange) else float(value)
            settings[item.name] = value
    return problem.adjusted(replace(problem.start, **settings))
