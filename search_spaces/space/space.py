"""The search space: the sampled settings with their ranges or choices and conditions, and the fixed settings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeGuard

from search_spaces.diagnostics.wording import as_written, changes
from search_spaces.training_config import TrainingConfig, shared_fields

Scalar = bool | int | float | str


@dataclass(frozen=True)
class _Range(ABC):
    """The numbers from `low` to `high`, both included.

    Attributes:
        low: Smallest value; above 0 if `log`.
        high: Largest value, above `low`.
        log: Whether to sample uniformly on a logarithmic scale; not together with `step`.
        step: Distance between neighbouring values; the first value is `low`.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __str__(self) -> str:
        """Format the range for messages: ``0.0001 to 0.01, log scale``."""
        return f"{self.low:g} to {self.high:g}" + "".join(
            f", {'log scale' if key == 'log' else f'step {value:g}'}" for key, value in self.spacing.items()
        )

    @property
    def spacing(self) -> dict[str, Any]:
        """The keys ``log`` or ``step`` of a search space file, without defaults; empty if both are defaults."""
        if self.log:
            return {"log": True}
        return {} if self.step == type(self).step else {"step": self.step}

    def contains(self, value: object) -> bool:
        """Return whether the value has the right type, is in the range, and is a whole number of steps from `low`."""
        number = self._on_grid(value)
        return number is not None and self.low <= number <= self.high

    def widened(self, value: object) -> Self:
        """Return the range, extended to the value if it is outside; unchanged if no range can contain the value."""
        number = self._on_grid(value)
        if number is None or (self.log and number <= 0):
            return self
        return replace(self, low=min(self.low, number), high=max(self.high, number))

    def clipped(self, value: object, margin: float) -> float | None:
        """Return the nearest value of the range; None if the value is no number or too far away from it.

        Args:
            value: Any value.
            margin: The largest distance as a fraction of the range, on its logarithmic scale if `log`.
        """
        if not (isinstance(value, float) or _is_int(value)) or not math.isfinite(value) or (self.log and value <= 0):
            return None
        nearest = min(max(value, self.low), self.high)
        if self.step is not None:
            steps = min(round((nearest - self.low) / self.step), int((self.high - self.low) / self.step + 1e-9))
            nearest = round(self.low + steps * self.step, 12)  # without the last binary digits of 0.1 + 2 * 0.1
        low, high, old, new = (math.log(one) if self.log else one for one in (self.low, self.high, value, nearest))
        return nearest if abs(old - new) <= margin * (high - low) else None

    @abstractmethod
    def _on_grid(self, value: object) -> float | None:
        """Return the value if it has the right type and is a whole number of steps from `low`, else None."""


@dataclass(frozen=True)
class FloatRange(_Range):
    """The numbers from `low` to `high`; `step` is None for a continuous range."""

    def _on_grid(self, value: object) -> float | None:
        if not (isinstance(value, float) or _is_int(value)) or not math.isfinite(value):
            return None
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return float(value) if math.isclose(steps, round(steps), abs_tol=1e-9) else None


@dataclass(frozen=True)
class IntRange(_Range):
    """The whole numbers from `low` to `high`; `step` is 1 or more, and 1 if `log`."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def _on_grid(self, value: object) -> int | None:
        return value if _is_int(value) and (value - self.low) % self.step == 0 else None


@dataclass(frozen=True)
class Choices:
    """Values to choose from, without an order.

    Attributes:
        values: Two or more different values.
    """

    values: tuple[Scalar, ...]

    def __str__(self) -> str:
        """Format the choices for messages: ``adam, adamw``."""
        return ", ".join(map(as_written, self.values))

    def contains(self, value: object) -> bool:
        """Return whether the value is one of the choices; ``True`` differs from ``1``."""
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.values)

    def widened(self, value: object) -> Choices:
        """Return the choices unchanged, because only ranges are widened."""
        return self

    def clipped(self, value: object, margin: float) -> Any:
        """Return the value if it is one of the choices, else None."""
        return value if self.contains(value) else None


Domain = FloatRange | IntRange | Choices


@dataclass(frozen=True)
class Parameter:
    """A setting that a search samples.

    Attributes:
        name: A field of `TrainingConfig`; also the parameter's name in the study.
        domain: The range or the choices.
        when: The condition for sampling: the allowed values of other fields, keyed by field; all fields must match.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    def is_active(self, config: TrainingConfig) -> bool:
        """Return whether a configuration meets the parameter's condition."""
        return all(Choices(values).contains(getattr(config, name)) for name, values in self.when.items())


@dataclass(frozen=True)
class SearchSpace:
    """The sampled parameters and the fixed settings of search trials.

    Conditions refer to earlier parameters or to settings that are not sampled, so the parameters can be suggested in
    order.

    Attributes:
        parameters: The sampled settings.
        base: Fixed values of other fields of `TrainingConfig`, keyed by field.
        warnings: Messages about valid settings that have no effect or are probably a mistake.
    """

    parameters: tuple[Parameter, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in sampling order."""
        return tuple(parameter.name for parameter in self.parameters)

    def parameter(self, name: str) -> Parameter | None:
        """Return the parameter with this name; None if the setting is not sampled."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def values_of(self, name: str) -> tuple[Any, ...]:
        """Return the choices, the two limits of the range, or the fixed value of a setting; () for other settings."""
        parameter = self.parameter(name)
        if parameter is None:
            return (self.base[name],) if name in self.base else ()
        domain = parameter.domain
        return domain.values if isinstance(domain, Choices) else (domain.low, domain.high)

    def active(self, config: TrainingConfig) -> list[Parameter]:
        """Return the parameters whose condition a configuration meets, in sampling order."""
        return [parameter for parameter in self.parameters if parameter.is_active(config)]

    @property
    def has_valid_min_lr(self) -> bool:
        """Whether the largest `min_lr` of the space is at most the smallest `learning_rate`."""
        return max(self.values_of("min_lr"), default=0) <= min(self.values_of("learning_rate"), default=math.inf)

    def start_config(self, presets: Iterable[TrainingConfig]) -> TrainingConfig:
        """Return the configuration of a search trial before any parameter is sampled.

        A field gets its value in `base`, otherwise the value that all presets share, otherwise its default. The
        configuration must be valid for training, except for the loss (see `fit_loss`). So some fields have special
        rules:

        - The model is the default model if a preset uses it. Otherwise it is the first preset's model, because the
          default model may not be defined.
        - Settings of the whole study (dataset, metric, seed) are those of the first preset.
        - A parameter without a condition has a value in its domain.
        - `min_lr` is at most the lowest learning rate that a trial can have.

        `experiment_name` and `output_dir` have their defaults.

        Args:
            presets: The configurations of the study's presets; may be empty.
        """
        start = TrainingConfig(**shared_fields(list(presets)) | deepcopy(dict(self.base)))
        sampled = {item.name: _within(item.domain, getattr(start, item.name)) for item in self if not item.when}
        start = replace(start, **sampled)
        return replace(start, min_lr=min(start.min_lr, start.learning_rate, *self.values_of("learning_rate")))

    def widened(self, configs: Iterable[TrainingConfig]) -> SearchSpace:
        """Return the space with each range extended just enough to contain the values of the configurations.

        A range is not extended to a value that it can never contain (0 on a logarithmic scale, a value between two
        steps), nor for a configuration that does not meet the parameter's condition. The ranges of `learning_rate` and
        `min_lr` are unchanged if extending them would allow a `min_lr` above the learning rate.
        """
        configs = list(configs)
        wider = {parameter.name: _widened(parameter, configs) for parameter in self}
        if not replace(self, parameters=tuple(wider.values())).has_valid_min_lr:
            wider |= {item.name: item for item in self if item.name in ("learning_rate", "min_lr")}
        return replace(self, parameters=tuple(wider.values()))

    def preset_notes(self, presets: Mapping[str, TrainingConfig]) -> list[str]:
        """Return a note for each preset value outside the range or choices, and whether the range is widened to it.

        Args:
            presets: The configurations of the study's presets, keyed by name.
        """
        wider = self.widened(presets.values())
        return [
            f"preset {name!r}: {item.name} {as_written(value)} is outside the search space ({item.domain}); "
            + (
                f"the range is now {after.domain}"
                if after.domain.contains(value)
                else "no search trial gets this value"
            )
            for name, config in presets.items()
            for item, after in zip(self, wider, strict=True)
            if item.is_active(config) and not item.domain.contains(value := getattr(config, item.name))
        ]

    def changes(self, other: SearchSpace) -> list[str]:
        """Return a text for each difference from another space; ignore the order of parameters and choices."""
        old, new = _entries(self), _entries(other)
        same = [name for name in old.keys() & new.keys() if _unordered(old[name]) == _unordered(new[name])]
        return [*changes(self.base, other.base, "base "), *changes(old, new | {name: old[name] for name in same})]

    def as_dict(self) -> dict[str, Any]:
        """Return the space as the data of a search space file, which `parse_search_space` converts back."""
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
    domain = parameter.domain
    data: dict[str, Any]
    if isinstance(domain, Choices):
        data = {"choices": list(domain.values)}
    else:
        data = {"low": domain.low, "high": domain.high, **domain.spacing}
    when = {name: list(values) for name, values in parameter.when.items()}
    return data | ({"when": when} if when else {})


def _entries(space: SearchSpace) -> dict[str, object]:
    """Return the parameters as in a file, keyed by name; choices without a condition are only a list."""
    written = {parameter.name: _parameter_data(parameter) for parameter in space}
    return {name: data["choices"] if data.keys() == {"choices"} else data for name, data in written.items()}


def _unordered(entry: object) -> object:
    if isinstance(entry, Mapping):
        return {key: _unordered(value) for key, value in entry.items()}
    return sorted(entry, key=repr) if isinstance(entry, list) else entry


def _within(domain: Domain, value: object) -> Any:
    """Return the value if it is in the domain, otherwise the first choice or the lower limit."""
    if domain.contains(value):
        return value
    return domain.values[0] if isinstance(domain, Choices) else domain.low


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
