"""Settings written to a file are read back unchanged, and any input is accepted or rejected with a message."""

import json
import math
from typing import Annotated

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from search_spaces import (
    ConfigurationError,
    Targets,
    TrainingConfig,
    config_digest,
    create_training_config,
    experiments_data,
    experiments_yaml,
    load_experiments,
    load_search_space,
    parse_experiments,
    parse_search_space,
)
from search_spaces.diagnostics.names import name_problem
from search_spaces.diagnostics.validation import kind_of
from search_spaces.experiments.schema import KEY_OF_FIELD, SECTIONS
from search_spaces.space.space import Choices, FloatRange, IntRange, Parameter, SearchSpace
from search_spaces.yaml_reader.file import load_yaml
from search_spaces.yaml_reader.nodes import yaml_text

# No surrogates (undecodable bytes), which a UTF-8 file cannot contain.
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)
NAMES = (WORDS | st.sampled_from(["ខ្មែរ", "1e-3", "yes", "null", "0x1F", "~", "1_000"])).filter(
    lambda name: name_problem(name) is None
)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
ANY_TEXT = st.text(max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def values_of(field):
    """Return a strategy for all valid values of a key."""
    if kind_of(field) is str:
        return WORDS
    kind = field.annotation
    return st.from_type(Annotated[kind, *field.metadata] if field.metadata else kind)


def field_of(name):
    section, key = KEY_OF_FIELD[name]
    return SECTIONS[section].model_fields[key]


RATE = st.floats(0, 1, exclude_max=True)
SETTINGS = {
    name: values_of(field_of(name))
    for name in KEY_OF_FIELD
    if name not in ("optimizer_betas", "model_name", "model_config_path", "loss_type", "threads")
} | {"threads": st.none() | st.integers(1, 1024)}


def result_or_problems(read, source):
    """Return the result of reading or the problems that are not empty; fail if there is neither."""
    try:
        return read(source)
    except ConfigurationError as error:
        return tuple(filter(None, error.problems)) or pytest.fail("rejected without a message")
    except yaml.YAMLError as error:
        return (str(error),)


@st.composite
def configs(draw):
    """Return any configuration that is valid with the default models."""
    settings = draw(st.fixed_dictionaries({}, optional=SETTINGS))
    settings |= {"optimizer_betas": draw(st.lists(RATE, min_size=2, max_size=2) | st.tuples(RATE, RATE))}
    settings |= draw(
        st.sampled_from(
            [
                {"model_name": "ctc", "loss_type": "ctc"},
                {"model_name": "small", "loss_type": "focal"},
                {"model_name": "large", "loss_type": "crossentropy"},
            ]
        )
    )
    config = TrainingConfig(**settings)
    assume(config.train_split != config.val_split)
    assume(config.min_lr <= config.learning_rate)
    return config


SHARES, COUNTED = st.none() | st.floats(0, 1, exclude_min=True), st.none() | st.integers(1, 1_000_000)
TARGETS = st.builds(
    Targets,
    character_accuracy=SHARES,
    sequence_accuracy=SHARES,
    training_time_per_epoch=COUNTED,
    convergence_epochs=COUNTED,
)


@given(config=configs(), name=NAMES, targets=TARGETS)
def test_any_configuration_is_read_back_with_all_settings_that_have_an_effect(config, name, targets, tmp_path):
    path = tmp_path / "experiments.yaml"
    path.write_text(experiments_yaml({name: config}, targets), encoding="utf-8")
    again = load_experiments(path)
    assert list(again.experiments) == [name]
    assert again.targets == targets
    assert experiments_data(again.experiments, again.targets) == experiments_data({name: config}, targets)
    # The second round trip changes nothing, not even settings without effect.
    twice = parse_experiments(experiments_data(again.experiments, targets))
    assert twice.experiments == again.experiments
    assert config_digest(twice.experiments[name]) == config_digest(again.experiments[name])


@given(data=PLAIN, block_style=st.booleans())
def test_any_plain_data_are_read_back_from_yaml(data, block_style, tmp_path):
    path = tmp_path / "data.yaml"
    text = yaml_text({"key": data}, block_style=block_style)
    try:
        content = text.encode()
    except UnicodeEncodeError:
        assume(False)
    path.write_bytes(content)
    assert load_yaml(path).data == {"key": data}


@given(text=st.text(max_size=200) | st.lists(st.sampled_from([*"-:[]{}&*!#|>'\",? \n\tab1", "<<", "  "])).map("".join))
def test_any_text_is_read_as_yaml_or_rejected_with_a_message(text, tmp_path):
    path = tmp_path / "text.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for load in (load_yaml, load_experiments, load_search_space):
        result = result_or_problems(load, path)
        assert not isinstance(result, tuple) or all(str(path) in problem for problem in result)


EXPERIMENT = st.dictionaries(
    st.sampled_from([*SECTIONS, "experiment_name"]) | ANY_TEXT,
    PLAIN | st.dictionaries(st.sampled_from([key for _, key in KEY_OF_FIELD.values()]) | ANY_TEXT, PLAIN, max_size=6),
    max_size=4,
)


@given(data=st.dictionaries(ANY_TEXT | st.integers() | st.none(), EXPERIMENT | PLAIN, max_size=3))
def test_any_experiments_are_accepted_or_rejected_with_a_message(data):
    result = result_or_problems(parse_experiments, {"experiments": data})
    if isinstance(result, tuple):
        assert all(problem.startswith("experiments") for problem in result)
    else:
        assert set(result.experiments) == set(data)


@given(data=EXPERIMENT)
def test_any_experiment_dictionary_is_accepted_or_rejected_with_a_message(data):
    assert isinstance(result_or_problems(create_training_config, data), TrainingConfig | tuple)


RANGES = ("learning_rate", "weight_decay", "gradient_clip_norm", "label_smoothing", "gamma", "factor", "focal_gamma")
COUNTS = ("batch_size", "warmup_epochs", "step_size", "patience", "early_stopping_patience")
CHOICES = {"scheduler_type": ("cosine", "steplr", "plateau"), "optimizer_type": ("adam", "adamw")}


@st.composite
def float_ranges(draw, name):
    low, high = sorted(draw(st.lists(values_of(field_of(name)), min_size=2, max_size=2, unique=True)))
    log = low > 0 and draw(st.booleans())
    if log or draw(st.booleans()):
        return FloatRange(low, high, log)
    step = (high - low) / draw(st.integers(1, 50))
    assume(step > 0)
    return FloatRange(low, high, step=step)


@st.composite
def int_ranges(draw, name):
    low = draw(st.integers(1, 500))
    if draw(st.booleans()):
        return IntRange(low, low + draw(st.integers(1, 500)), log=True)
    step = draw(st.integers(1, 20))
    return IntRange(low, low + step * draw(st.integers(1, 20)), step=step)


@st.composite
def choices(draw, name):
    allowed = st.sampled_from(CHOICES[name]) if name in CHOICES else values_of(field_of(name))
    values = draw(st.lists(allowed, min_size=2, max_size=4, unique=True))
    return Choices(tuple(values))


@st.composite
def spaces(draw):
    """Return any search space, with conditions on earlier parameters."""
    names = draw(st.lists(st.sampled_from([*RANGES, *COUNTS, *CHOICES]), min_size=1, max_size=6, unique=True))
    parameters = []
    for name in names:
        kinds = [choices] if name in CHOICES else [choices, float_ranges if name in RANGES else int_ranges]
        domain = draw(draw(st.sampled_from(kinds))(name))
        above = [item for item in parameters if isinstance(item.domain, Choices)]
        owner = draw(st.none() | st.sampled_from(above)) if above else None
        when = {owner.name: owner.domain.values[:1]} if owner and isinstance(owner.domain, Choices) else {}
        parameters.append(Parameter(name, domain, when))
    base = draw(st.fixed_dictionaries({}, optional={"num_epochs": st.integers(1, 100), "min_lr": st.just(0.0)}))
    return SearchSpace(tuple(parameters), base)


@given(space=spaces())
def test_any_space_is_read_back_from_plain_data_json_and_yaml(space, tmp_path):
    data = space.as_dict()
    assert parse_search_space(data) == space
    assert parse_search_space(json.loads(json.dumps(data))) == space
    path = tmp_path / "space.yaml"
    path.write_text(yaml_text(data), encoding="utf-8")
    again = load_search_space(path)
    assert again == space
    assert again.changes(space) == []


@given(data=st.dictionaries(st.sampled_from(["space", "base"]) | ANY_TEXT, EXPERIMENT | PLAIN, max_size=3))
def test_any_space_data_are_accepted_or_rejected_with_a_message(data):
    assert isinstance(result_or_problems(parse_search_space, data), SearchSpace | tuple)


@given(space=spaces(), data=st.data())
def test_widened_range_contains_the_new_value_and_all_old_values(space, data):
    for parameter in space:
        value = data.draw(values_of(field_of(parameter.name)))
        wider = parameter.domain.widened(value)
        old_values = [value for value in space.values_of(parameter.name) if parameter.domain.contains(value)]
        assert [value for value in old_values if not wider.contains(value)] == []
        assert wider.widened(value) == wider
        if isinstance(wider, FloatRange) and wider.step is None and not wider.log:
            assert wider.contains(value) == math.isfinite(value)
