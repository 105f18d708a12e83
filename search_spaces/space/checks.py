"""Rules that join several settings of a search space."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import takewhile

from search_spaces.diagnostics.diagnostics import Diagnostics
from search_spaces.diagnostics.diff import as_written
from search_spaces.model_definitions import ModelDefinition
from search_spaces.space.space import Choices, FloatRange, Parameter, SearchSpace


def check_space(
    space: SearchSpace, definitions: Mapping[str, ModelDefinition] | None, diagnostics: Diagnostics
) -> None:
    """Record where settings of a space do not go together.

    Args:
        space: The space, without what is wrong by itself.
        definitions: The models that exist; None leaves models and losses unchecked.
        diagnostics: Where problems go.
    """
    _check_floor(space, diagnostics)
    if definitions is not None:
        _LossCheck(space, definitions, diagnostics).run()


def _check_floor(space: SearchSpace, diagnostics: Diagnostics) -> None:
    """Record that a trial could get a lowest learning rate above its initial one."""
    floor, rate = space.parameter("min_lr"), space.parameter("learning_rate")
    if not space.rates_fit:
        highest = max(space.given("min_lr"))
        rule = f"the lowest learning rate of a trial (min_lr, up to {highest:g}) is at most its initial one"
        path = ["base" if rate is None else "space", "learning_rate"]
        path += ["low"] if rate is not None and isinstance(rate.domain, FloatRange) else []
        remedy = f"write {highest:g} or more, or a smaller min_lr"
        diagnostics.problem(path, min(space.given("learning_rate")), rule, remedy)
    elif floor is not None and (rate.when if rate is not None else "learning_rate" not in space.base):
        text = (
            "varies, so that it may be above a learning rate that the space does not give; "
            "write learning_rate as well, under base: or under space: without a condition"
        )
        diagnostics.problem_text(("space", "min_lr"), text)


class _LossCheck:
    """CTC models learn with CTC loss only, the others with the other losses."""

    def __init__(
        self, space: SearchSpace, definitions: Mapping[str, ModelDefinition], diagnostics: Diagnostics
    ) -> None:
        self._space = space
        self._diagnostics = diagnostics
        models = [name for name in space.given("model_name") if name in definitions]
        self._ctc = [name for name in models if definitions[name].is_ctc]
        self._others = [name for name in models if not definitions[name].is_ctc]
        self._loss = space.parameter("loss_type")

    def run(self) -> None:
        """Record models that could get a loss which they cannot learn with."""
        losses = self._space.given("loss_type")
        others_only = [loss for loss in losses if loss != "ctc"]
        if others_only and (wrong := self._reached(self._ctc)):
            rule = "CTC models learn with CTC loss only, which they get by themselves"
            self._problem(wrong, others_only, rule, self._remedy())
        if "ctc" in losses and (wrong := self._reached(self._others)):
            place = "the line" if self._loss is None else "ctc"
            rule = "only CTC models learn with it, and get it by themselves"
            self._problem(wrong, ["ctc"], rule, f"leave {place} out")
        if self._ctc and self._space.parameter("model_name") is not None:
            self._check_order()

    def _reached(self, models: list[str]) -> list[str]:
        """Return the models for which the space may give the loss."""
        return [name for name in models if self._loss is None or _can_count(self._loss, name, self._space)]

    def _remedy(self) -> str:
        if not self._others:
            return "leave loss_type out"
        condition = f"when: {{model_name: {as_written(self._others)}}}"
        if self._loss is None:
            choices = f"{{choices: [crossentropy, focal], {condition}}}"
            return f"leave the line out, or let it vary for the others, under space: loss_type: {choices}"
        if "model_name" in self._loss.when:
            return f"write {condition}"
        later = self._space.names[self._space.names.index("loss_type") :]
        return f"add {condition}{' and move model_name above it' if 'model_name' in later else ''}"

    def _problem(self, models: Collection[str], losses: Collection[str], rule: str, remedy: str) -> None:
        who = f"the model{'s' if len(models) > 1 else ''} {', '.join(map(repr, models))}"
        path = ("base" if self._loss is None else "space", "loss_type")
        self._diagnostics.problem_text(path, f"{who} would get {' or '.join(map(repr, losses))}; {rule}; {remedy}")

    def _check_order(self) -> None:
        """Record conditions on the loss that are looked up before the model has decided on it."""
        for parameter in takewhile(lambda item: item.name != "model_name", self._space):
            if "loss_type" in parameter.when:
                path = ("space", parameter.name, "when", "loss_type")
                text = f"the loss is not known before the model; move model_name above {parameter.name}"
                self._diagnostics.problem_text(path, text)


def _can_count(parameter: Parameter, model: str, space: SearchSpace) -> bool:
    """Return whether a parameter's condition can hold for a model, whatever else is drawn."""
    fixed = {**space.base, "model_name": model}
    return all(Choices(values).holds(fixed[name]) for name, values in parameter.when.items() if name in fixed)
