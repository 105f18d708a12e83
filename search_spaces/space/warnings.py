"""What is legal in a search space but senseless: settings that can never act, and ranges that are hardly meant."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.diagnostics.diff import as_written
from search_spaces.experiments.schema import FIELD_OF_KEY
from search_spaces.experiments.warnings import ONLY_FOR
from search_spaces.space.space import Choices, Parameter, Scalar, SearchSpace

_ORDER_OF_MAGNITUDE = 10
# Which values of a setting can never act within so many epochs: the least one is the epochs and this.
_TOO_LONG: Mapping[str, tuple[int, str]] = {
    "warmup_epochs": (0, "the warm-up never ends"),
    "step_size": (0, "the rate never drops"),
    "patience": (-2, "the rate never drops"),
    "early_stopping_patience": (-1, "it can never stop early"),
}


def warn_of_space(space: SearchSpace, diagnostics: Diagnostics) -> None:
    """Warn of what a space offers in vain.

    What its base leaves out comes from the presets of a study, so that nothing is known of it here.
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
        # CTC models get their loss by themselves, whatever the base says.
        if name in space.base and not Choices(values).holds(space.base[name]) and "ctc" not in values:
            text = f"never holds, since {name} is {as_written(space.base[name])} under base:; "
            diagnostics.warning(("space", parameter.name, "when", name), f"{text}{parameter.name} can never act")


def _warn_of_two_numbers(parameter: Parameter, diagnostics: Diagnostics) -> None:
    values = parameter.domain.values if isinstance(parameter.domain, Choices) else ()
    if len(values) == 2 and all(isinstance(value, float) for value in values):
        low, high = sorted(map(float, values))
        if low > 0 and high / low >= _ORDER_OF_MAGNITUDE:
            text = f"only {low:g} and {high:g} are tried, nothing between; a range is {{low: {low:g}, high: {high:g}}}"
            diagnostics.warning(("space", parameter.name), text)


def _warn_of_kind(field: str, kind: str, needed: Scalar, space: SearchSpace, diagnostics: Diagnostics) -> None:
    """Warn of a setting that counts with one kind of loss or schedule, which the space never gives."""
    given, parameter = space.given(kind), space.parameter(field)
    is_told = parameter is not None and kind in parameter.when
    if not given or needed in given or not space.given(field) or is_told:
        return
    text = f"can never act: only {kind} {needed} looks at it, and the space gives {as_written(list(given))}"
    diagnostics.warning((_place(field, space), field), text)


def _warn_of_epochs(space: SearchSpace, diagnostics: Diagnostics) -> None:
    epochs = space.base["num_epochs"]
    for field, (less, why) in _TOO_LONG.items():
        longest = max(space.given(field), default=0)
        if longest and longest >= epochs + less:
            diagnostics.warning((_place(field, space), field), f"{longest} of {epochs} epochs can never act: {why}")


def _place(field: str, space: SearchSpace) -> str:
    return "base" if field in space.base else "space"
