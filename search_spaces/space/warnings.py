"""Warnings about valid settings of a search space that have no effect or are probably a mistake."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.diagnostics.diff import as_written
from search_spaces.diagnostics.plural import counted
from search_spaces.experiments.schema import FIELD_OF_KEY, ONLY_FOR
from search_spaces.model_definitions import LOSSES_OF_DECODER
from search_spaces.space.space import Choices, Parameter, Scalar, SearchSpace

_ORDER_OF_MAGNITUDE = 10
# Durations in epochs that are too long if they reach the number of epochs plus an offset, and what then never happens.
_TOO_LONG: Mapping[str, tuple[int, str]] = {
    "warmup_epochs": (0, "the cosine starts"),
    "step_size": (0, "gamma has an effect"),
    "patience": (-2, "factor has an effect"),
    "early_stopping_patience": (-1, "it can stop early"),
}


def warn_of_space(space: SearchSpace, diagnostics: Diagnostics) -> None:
    """Record warnings about the settings of a search space.

    Only settings in the search space are checked: all others come from the presets of a study, which are unknown here.
    """
    for parameter in space:
        _warn_of_conditions(parameter, space, diagnostics)
        _warn_of_two_numbers(parameter, diagnostics)
    for (section, key), (owner, kind, needed) in ONLY_FOR.items():
        _warn_of_kind(FIELD_OF_KEY[section, key], FIELD_OF_KEY[owner, kind], needed, space, diagnostics)
    if "num_epochs" in space.base:
        _warn_of_epochs(space, diagnostics)


def _warn_of_conditions(parameter: Parameter, space: SearchSpace, diagnostics: Diagnostics) -> None:
    for name, values in parameter.when.items():
        # A model that supports only one loss function gets it even if `base` has another one.
        is_imposed = name == "loss_type" and any((value,) in LOSSES_OF_DECODER.values() for value in values)
        if name in space.base and not Choices(values).contains(space.base[name]) and not is_imposed:
            text = f"never true, because {name} is {as_written(space.base[name])} in 'base'; "
            diagnostics.warning(("space", parameter.name, "when", name), f"{text}{parameter.name} is never sampled")


def _warn_of_two_numbers(parameter: Parameter, diagnostics: Diagnostics) -> None:
    values = parameter.domain.values if isinstance(parameter.domain, Choices) else ()
    if len(values) == 2 and all(isinstance(value, float) for value in values):
        low, high = sorted(map(float, values))
        if low > 0 and high / low >= _ORDER_OF_MAGNITUDE:
            text = f"only {low:g} and {high:g} are tried; for a range, use {{low: {low:g}, high: {high:g}}}"
            diagnostics.warning(("space", parameter.name), text)


def _warn_of_kind(field: str, kind: str, needed: Scalar, space: SearchSpace, diagnostics: Diagnostics) -> None:
    """Warn of a setting that has an effect only with a loss function or schedule that no trial of the space uses."""
    kinds, parameter = space.values_of(kind), space.parameter(field)
    has_condition = parameter is not None and kind in parameter.when
    if not kinds or needed in kinds or not space.values_of(field) or has_condition:
        return
    text = f"has no effect: only {kind} {needed} uses this setting, but {kind} is {as_written(list(kinds))}"
    diagnostics.warning((_section(field, space), field), text)


def _warn_of_epochs(space: SearchSpace, diagnostics: Diagnostics) -> None:
    epochs = space.base["num_epochs"]
    length = counted(epochs, "epoch")
    for field, (offset, event) in _TOO_LONG.items():
        longest = max(space.values_of(field), default=0)
        if longest and longest >= epochs + offset:
            text = f"{longest} is too long for {length}: training ends before {event}; use a smaller value"
            diagnostics.warning((_section(field, space), field), text)


def _section(field: str, space: SearchSpace) -> str:
    return "base" if field in space.base else "space"
