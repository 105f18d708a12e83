"""Rules about combinations of settings in a search space, and warnings about settings that are probably a mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.diagnostics.wording import as_written, counted
from search_spaces.experiments.schema import FIELD_OF_KEY, ONLY_FOR
from search_spaces.model_definitions import LOSSES_OF_DECODER, ModelDefinition
from search_spaces.space.space import Choices, FloatRange, Parameter, Scalar, SearchSpace


def check_space(
    space: SearchSpace, definitions: Mapping[str, ModelDefinition] | None, diagnostics: Diagnostics
) -> None:
    """Record conflicts between the settings of a search space.

    Args:
        space: The search space, without invalid settings.
        definitions: The defined models, keyed by name; None skips the check of models and loss functions.
        diagnostics: Collects the errors.
    """
    _check_min_lr(space, diagnostics)
    if definitions is not None:
        _LossCheck(space, definitions, diagnostics).run()


def _check_min_lr(space: SearchSpace, diagnostics: Diagnostics) -> None:
    """Record an error if a search trial could get a `min_lr` above its `learning_rate`."""
    rate = space.parameter("learning_rate")
    if not space.has_valid_min_lr:
        highest = max(space.values_of("min_lr"))
        rule = f"expected at least {highest:g}, the largest min_lr in this search space"
        path = ["base" if rate is None else "space", "learning_rate"]
        path += ["low"] if rate is not None and isinstance(rate.domain, FloatRange) else []
        remedy = f"use {highest:g} or more, or a smaller min_lr"
        diagnostics.invalid_value(path, min(space.values_of("learning_rate")), rule, remedy)
    elif space.parameter("min_lr") and (rate.when if rate is not None else "learning_rate" not in space.base):
        text = (
            "min_lr is sampled, but not every trial samples learning_rate, so min_lr could exceed learning_rate; "
            "add learning_rate to 'base', or to 'space' without a condition"
        )
        diagnostics.error("space.min_lr", text)


class _LossCheck:
    """The check that no trial samples or fixes a loss function that its model does not support.

    `fit_loss` sets the loss function of a model that supports only one, so the space must not set another one.
    """

    def __init__(
        self, space: SearchSpace, definitions: Mapping[str, ModelDefinition], diagnostics: Diagnostics
    ) -> None:
        self._space = space
        self._diagnostics = diagnostics
        self._loss = space.parameter("loss_type")
        models = [name for name in space.values_of("model_name") if name in definitions]
        self._losses_of = {name: definitions[name].losses for name in models}
        self._with_choice = [name for name in models if len(self._losses_of[name]) > 1]

    def run(self) -> None:
        """Record an error for the models that could get an unsupported loss function."""
        for supported in sorted(dict.fromkeys(self._losses_of.values()), key=len):
            unsupported = [loss for loss in self._space.values_of("loss_type") if loss not in supported]
            models = [name for name, losses in self._losses_of.items() if losses == supported and self._gets_loss(name)]
            if models and unsupported:
                self._record(models, unsupported, supported)
        if len(self._with_choice) < len(self._losses_of) and self._space.parameter("model_name") is not None:
            self._check_order()

    def _gets_loss(self, model: str) -> bool:
        return self._loss is None or _may_be_active(self._loss, model, self._space)

    def _record(self, models: Sequence[str], unsupported: Sequence[str], supported: Sequence[str]) -> None:
        if len(supported) == 1:
            kind = supported[0].upper()
            rule = f"{kind} models support only {kind} loss, which is set automatically; {self._remedy()}"
        else:
            losses = " and ".join(unsupported)
            omitted = "this line" if self._loss is None else losses
            rule = (
                f"only {losses.upper()} models support this loss function, which is set automatically; remove {omitted}"
            )
        subject = f"the model{'s' if len(models) > 1 else ''} {', '.join(map(repr, models))}"
        path = ("base" if self._loss is None else "space", "loss_type")
        self._diagnostics.error(path, f"{subject} would get {' or '.join(map(repr, unsupported))}; {rule}")

    def _remedy(self) -> str:
        if not self._with_choice:
            return "remove loss_type"
        condition = f"when: {{model_name: {as_written(self._with_choice)}}}"
        if self._loss is None:
            losses = as_written(self._losses_of[self._with_choice[0]])
            choices = f"{{choices: {losses}, {condition}}}"
            return (
                f"remove this line; to sample the loss function of other models, add 'loss_type: {choices}' to 'space'"
            )
        if "model_name" in self._loss.when:
            return f"use {condition}"
        later = self._space.names[self._space.names.index("loss_type") :]
        return f"add {condition}{' and move model_name above loss_type' if 'model_name' in later else ''}"

    def _check_order(self) -> None:
        """Record conditions on the loss function that are evaluated before the model is sampled and changes it."""
        for parameter in takewhile(lambda item: item.name != "model_name", self._space):
            if "loss_type" in parameter.when:
                remedy = f"move model_name above {parameter.name}"
                text = f"the loss function depends on model_name, which is sampled later; {remedy}"
                self._diagnostics.error(("space", parameter.name, "when", "loss_type"), text)


def _may_be_active(parameter: Parameter, model: str, space: SearchSpace) -> bool:
    """Return whether some trial with this model can meet the parameter's condition."""
    fixed = {**space.base, "model_name": model}
    return all(Choices(values).contains(fixed[name]) for name, values in parameter.when.items() if name in fixed)


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
