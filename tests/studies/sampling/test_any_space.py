"""Any search space can be converted to Optuna distributions, and suggested values to a valid configuration."""

from dataclasses import replace
from decimal import Decimal

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import check_distribution_compatibility, distribution_to_json, json_to_distribution

from search_spaces import (
    Choices,
    FloatRange,
    IntRange,
    Parameter,
    SearchSpace,
    Targets,
    TrainingConfig,
    experiments_data,
    parse_experiments,
)
from studies import suggest_all
from studies.sampling.distributions import to_distribution

FLOATS = {
    "learning_rate": (1e-3, 1.0),
    "gamma": (1e-6, 1.0),
    "label_smoothing": (0.0, 0.9),
    "weight_decay": (0.0, 10.0),
}
INTS = {"batch_size": 512, "warmup_epochs": 30, "step_size": 1000, "patience": 100}
CHOICES = {
    "scheduler_type": ("cosine", "steplr", "plateau"),
    "optimizer_type": ("adam", "adamw"),
    "augmentation": (True, False),
}
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def float_ranges(draw, minimum, maximum):
    if draw(st.booleans()):
        low, high = sorted(draw(st.lists(st.floats(minimum, maximum), min_size=2, max_size=2, unique=True)))
        return FloatRange(low, high, log=low > 0 and draw(st.booleans()))
    # Short decimals, as in a file; `high` need not be on the grid.
    unit = Decimal(10) ** -draw(st.integers(1, 6))
    ends = [int(Decimal(end) / unit) for end in (minimum, maximum)]
    low, high = sorted(draw(st.lists(st.integers(max(1, ends[0]), ends[1]), min_size=2, max_size=2, unique=True)))
    step = draw(st.integers(1, high - low))
    return FloatRange(*(float(number * unit) for number in (low, high)), step=float(step * unit))


@st.composite
def int_ranges(draw, maximum):
    low = draw(st.integers(1, maximum - 1))
    high = draw(st.integers(low + 1, maximum))
    if draw(st.booleans()):
        return IntRange(low, high, log=True)
    return IntRange(low, high, step=draw(st.integers(1, high - low)))


def domains(name):
    if name in CHOICES:
        return st.lists(st.sampled_from(CHOICES[name]), min_size=2, unique=True).map(
            lambda values: Choices(tuple(values))
        )
    if name in INTS:
        return int_ranges(INTS[name]) | st.lists(st.integers(1, INTS[name]), min_size=2, max_size=4, unique=True).map(
            lambda values: Choices(tuple(values))
        )
    return float_ranges(*FLOATS[name])


@st.composite
def spaces(draw):
    """Return any search space, with conditions on earlier choices."""
    parameters = []
    for name in draw(st.lists(st.sampled_from([*CHOICES, *INTS, *FLOATS]), min_size=1, unique=True)):
        above = {item.name: item.domain.values for item in parameters if isinstance(item.domain, Choices)}
        owners = draw(st.lists(st.sampled_from(list(above)), unique=True, max_size=2)) if above else []
        parameters.append(Parameter(name, draw(domains(name)), {owner: above[owner][:1] for owner in owners}))
    return SearchSpace(tuple(parameters))


@given(domain=st.sampled_from([*CHOICES, *INTS, *FLOATS]).flatmap(domains), seed=SEEDS)
def test_distribution_has_the_values_of_its_domain_and_is_restored_from_json(domain, seed):
    distribution = to_distribution(domain)
    again = json_to_distribution(distribution_to_json(distribution))
    check_distribution_compatibility(distribution, again)
    assert again == distribution
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(5):
        value = study.ask({"x": distribution}).params["x"]
        assert domain.contains(value)
        assert distribution._contains(distribution.to_internal_repr(value))


@given(domain=st.sampled_from([*CHOICES, *INTS, *FLOATS]).flatmap(domains))
def test_distribution_has_both_ends_of_its_domain(domain):
    distribution = to_distribution(domain)
    if isinstance(domain, Choices):
        assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
        assert distribution.choices == domain.values
        return
    assert not isinstance(distribution, optuna.distributions.CategoricalDistribution)
    assert distribution.low == domain.low
    # The last value on the grid.
    step = domain.step or 0
    assert domain.high - step * (1 + 1e-9) <= distribution.high <= domain.high
    assert domain.contains(distribution.high)


@given(space=spaces(), seed=SEEDS)
def test_active_parameters_are_suggested_and_the_result_is_a_valid_preset(space, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    base = TrainingConfig(min_lr=0.0)
    trial = study.ask()
    config = suggest_all(trial, space, base)
    active = space.active(config)
    assert trial.params == {parameter.name: getattr(config, parameter.name) for parameter in active}
    assert all(parameter.domain.contains(trial.params[parameter.name]) for parameter in active)
    original = {name: getattr(base, name) for name in trial.params}
    assert replace(config, **original) == base
    # The configuration is valid in an experiments file, and as a preset it has the same parameters.
    again = parse_experiments(experiments_data({"found": config}, Targets())).experiments["found"]
    study.enqueue_trial(trial.params, user_attrs={"kind": "preset"})
    preset = study.ask()
    assert suggest_all(preset, space, config) == config
    assert preset.params == trial.params
    assert again.learning_rate == config.learning_rate


@given(space=spaces(), data=st.data())
def test_preset_keeps_all_values_and_those_inside_the_space_are_parameters(space, data):
    changes = {
        name: data.draw(st.floats(*FLOATS[name]) if name in FLOATS else st.integers(1, INTS[name]))
        for name in [*FLOATS, *INTS]
    }
    config = replace(TrainingConfig(), **changes)
    study = optuna.create_study()
    study.enqueue_trial({name: getattr(config, name) for name in space.names}, user_attrs={"kind": "preset"})
    trial = study.ask()
    assert suggest_all(trial, space, config) == config
    inside = [
        parameter for parameter in space.active(config) if parameter.domain.contains(getattr(config, parameter.name))
    ]
    assert trial.params == {parameter.name: getattr(config, parameter.name) for parameter in inside}
