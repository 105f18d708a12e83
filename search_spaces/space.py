"""The search space: which settings a search may vary, within what, and under which condition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from search_spaces.training_config import TrainingConfig

Scalar = bool | int | float | str


@dataclass(frozen=True)
class FloatRange:
    """The numbers from `low` to `high`, both included.

    Attributes:
        low: Smallest value; above 0 if `log`.
        high: Largest value, above `low`.
        log: Whether to draw evenly on a logarithmic scale; excludes `step`.
        step: Distance between neighbouring values counted from `low`, or None for any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def holds(self, value: object) -> bool:
        """Return whether the value is in the range and on its grid."""
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or _on_grid(value, self.low, self.step)

    def widened(self, value: object) -> FloatRange:
        """Return the range grown just enough to hold the value; itself if it holds it or never can."""
        if not _is_number(value) or not math.isfinite(value) or (self.log and value <= 0):
            return self
        if self.step is not None and not _on_grid(value, self.low, self.step):
            return self
        return replace(self, low=min(self.low, float(value)), high=max(self.high, float(value)))


@dataclass(frozen=True)
class IntRange:
    """The whole numbers from `low` to `high`, both included.

    Attributes:
        low: Smallest value; 1 or more if `log`.
        high: Largest value, above `low`.
        log: Whether to draw evenly on a logarithmic scale; then `step` is 1.
        step: Distance between neighbouring values counted from `low`, 1 or more.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def holds(self, value: object) -> bool:
        """Return whether the value is a whole number in the range and on its grid."""
        return _is_int(value) and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def widened(self, value: object) -> IntRange:
        """Return the range grown just enough to hold the value; itself if it holds it or never can."""
        if not _is_int(value) or (self.log and value < 1) or (value - self.low) % self.step != 0:
            return self
        return replace(self, low=min(self.low, value), high=max(self.high, value))


@dataclass(frozen=True)
class Choices:
    """A few values to choose from, in no order.

    Attributes:
        values: Two or more different values.
    """

    values: tuple[Scalar, ...]

    def holds(self, value: object) -> bool:
        """Return whether the value is one of the choices; ``True`` is not ``1``."""
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.values)

    def widened(self, value: object) -> Choices:
        """Return the choices as they are: a search never tries what nobody offered."""
        return self


Domain = FloatRange | IntRange | Choices


@dataclass(frozen=True)
class Parameter:
    """One setting that the search may vary.

    Attributes:
        name: A field of `TrainingConfig`; also the parameter's name in the study.
        domain: What it may be.
        when: When it counts: for each field named, the values that let it count. All must hold.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    def is_active(self, config: TrainingConfig) -> bool:
        """Return whether the parameter's condition holds in a configuration."""
        return all(Choices(values).holds(getattr(config, name)) for name, values in self.when.items())


@dataclass(frozen=True)
class SearchSpace:
    """All settings that a search may vary, and the fixed ones that its trials start from.

    A parameter's condition names fields outside the space or parameters further up only, so the parameters
    can be suggested in order.

    Attributes:
        parameters: What varies.
        base: Fixed values of other fields of `TrainingConfig`.
    """

    parameters: tuple[Parameter, ...]
    base: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Parameter]:
        """Iterate over the parameters in order."""
        return iter(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names in order."""
        return tuple(parameter.name for parameter in self.parameters)

    def active(self, config: TrainingConfig) -> list[Parameter]:
        """Return the parameters whose condition holds in a configuration, in order."""
        return [parameter for parameter in self.parameters if parameter.is_active(config)]

    def holds(self, name: str, value: object) -> bool:
        """Return whether the space has a parameter of this name that may take this value."""
        return any(parameter.domain.holds(value) for parameter in self.parameters if parameter.name == name)

    def widened(self, configs: Iterable[TrainingConfig]) -> SearchSpace:
        """Return the space with its ranges grown just enough to hold what the configurations use.

        A value that a range can never hold (0 on a logarithmic scale, one between two steps, a name outside
        the choices) leaves it as it is, and so does a configuration in which the condition does not hold.
        """
        configs = list(configs)
        return replace(self, parameters=tuple(_widened(parameter, configs) for parameter in self.parameters))

    def as_dict(self) -> dict[str, Any]:
        """Return the space as plain data shaped like a search space file, for `parse_search_space`."""
        return {
            "base": dict(self.base),
            "space": {parameter.name: _parameter_data(parameter) for parameter in self.parameters},
        }


def _widened(parameter: Parameter, configs: Iterable[TrainingConfig]) -> Parameter:
    domain: Domain = parameter.domain
    for config in configs:
        if parameter.is_active(config):
            domain = domain.widened(getattr(config, parameter.name))
    return replace(parameter, domain=domain)


def _parameter_data(parameter: Parameter) -> dict[str, Any]:
    data = _domain_data(parameter.domain)
    if parameter.when:
        data["when"] = {name: list(values) for name, values in parameter.when.items()}
    return data


def _domain_data(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Choices):
        return {"choices": list(domain.values)}
    data: dict[str, Any] = {"low": domain.low, "high": domain.high}
    if domain.log:
        data["log"] = True
    elif domain.step != (None if isinstance(domain, FloatRange) else 1):
        data["step"] = domain.step
    return data


def _on_grid(value: float, low: float, step: float) -> bool:
    steps = (value - low) / step
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) or _is_int(value)
