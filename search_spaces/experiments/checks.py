"""Rules that join several keys of an experiment, or several experiments of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import yaml

from search_spaces.diagnostics.diagnostics import Diagnostics, describe, suggest
from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import KEY_OF_FIELD, Experiment
from search_spaces.experiments.warnings import ExperimentWarnings, learning_rate_of
from search_spaces.model_definitions import ModelDefinition, load_model_definitions
from search_spaces.training_config import STUDY_FIELDS
from search_spaces.yaml_reader.nodes import KeyPath


class ModelFiles:
    """The model definitions files that experiments name, each read once."""

    def __init__(self) -> None:
        """Begin with none read."""
        self._read: dict[str, dict[str, ModelDefinition] | None] = {}

    def definitions(self, path: str, key: KeyPath, diagnostics: Diagnostics) -> dict[str, ModelDefinition] | None:
        """Return the definitions in a file, or None after recording why there are none."""
        if path not in self._read:
            self._read[path] = self._load(path, key, diagnostics)
        return self._read[path]

    def _load(self, path: str, key: KeyPath, diagnostics: Diagnostics) -> dict[str, ModelDefinition] | None:
        try:
            return load_model_definitions(path)
        except FileNotFoundError as error:
            diagnostics.broken(key, str(error))
        except yaml.YAMLError as error:
            diagnostics.adopt([str(error)])
        except ConfigurationError as error:
            diagnostics.adopt(error.problems)
        return None


class ExperimentCheck:
    """The rules that join keys of one experiment; one is left out where a key of it is wrong by itself."""

    def __init__(self, experiment: Experiment, path: KeyPath, diagnostics: Diagnostics, models: ModelFiles) -> None:
        """Prepare to check one experiment.

        Args:
            experiment: The experiment, with defaults in place of wrong values.
            path: The keys that lead to it.
            diagnostics: Where problems and notes go.
            models: Where model definitions come from.
        """
        self._experiment = experiment
        self._path = path
        self._diagnostics = diagnostics
        self._models = models

    def run(self) -> None:
        """Apply all rules."""
        self._splits_differ()
        self._model_exists_and_fits_the_loss()
        self._floor_is_below_the_rate()
        ExperimentWarnings(self._experiment, self._path, self._diagnostics).run()

    def _splits_differ(self) -> None:
        data = self._experiment.data
        if self._sound("data.train_split", "data.val_split") and data.train_split == data.val_split:
            key = "val_split" if "val_split" in data.model_fields_set else "train_split"
            rule = "training and validation need two different splits"
            self._diagnostics.problem(
                self._at(f"data.{key}"), data.val_split, rule, "name another split of the dataset"
            )

    def _model_exists_and_fits_the_loss(self) -> None:
        model = self._experiment.model
        if not self._sound("model.config_path"):
            return
        definitions = self._models.definitions(model.config_path, self._at("model.config_path"), self._diagnostics)
        if definitions is None or not self._sound("model.name"):
            return
        if model.name not in definitions:
            rule = f"a model defined in {model.config_path} is expected"
            self._diagnostics.problem(self._at("model.name"), model.name, rule, suggest(model.name, definitions))
        elif self._sound("training.loss_type"):
            self._loss_fits(definitions)

    def _loss_fits(self, definitions: Mapping[str, ModelDefinition]) -> None:
        name, loss = self._experiment.model.name, self._experiment.training.loss_type
        given = "" if "loss_type" in self._experiment.training.model_fields_set else " (the default)"
        if definitions[name].is_ctc and loss != "ctc":
            rule = f"the model {name!r} is a CTC model and learns with CTC loss only; write loss_type: ctc"
        elif not definitions[name].is_ctc and loss == "ctc":
            others = [other for other, definition in definitions.items() if definition.is_ctc]
            choice = f", or name a CTC model ({', '.join(others)})" if others else ""
            rule = f"the model {name!r} is no CTC model; write loss_type: crossentropy or focal{choice}"
        else:
            return
        self._diagnostics.problem_text(self._at("training.loss_type"), f"found {loss!r}{given}; {rule}")

    def _floor_is_below_the_rate(self) -> None:
        floor = self._experiment.scheduler.min_lr
        key, rate = learning_rate_of(self._experiment)
        if self._sound("scheduler.min_lr", key) and floor > rate:
            rule = f"the lowest learning rate is at most the initial one ({key}: {rate})"
            remedy = f"write, for example, {rate / 1000:g}"
            self._diagnostics.problem(self._at("scheduler.min_lr"), floor, rule, remedy)

    def _at(self, key: str) -> KeyPath:
        return (*self._path, *key.split("."))

    def _sound(self, *keys: str) -> bool:
        return all(self._diagnostics.is_sound(self._at(key)) for key in keys)


def check_agreement(experiments: Mapping[str, Experiment], diagnostics: Diagnostics) -> None:
    """Record every experiment that differs from the others in what a study has one of.

    The experiments of a file become trials of one study: they compete on one dataset, for one metric.
    """
    for field in STUDY_FIELDS:
        section, key = KEY_OF_FIELD[field]
        values = {
            name: getattr(getattr(experiment, section), key)
            for name, experiment in experiments.items()
            if diagnostics.is_sound(("experiments", name, section, key))
        }
        _check_one_value(experiments, section, key, values, diagnostics)


def _check_one_value(
    experiments: Mapping[str, Experiment],
    section: str,
    key: str,
    values: Mapping[str, object],
    diagnostics: Diagnostics,
) -> None:
    if len(set(values.values())) < 2:
        return
    [(usual, _)] = Counter(values.values()).most_common(1)
    others = [name for name, value in values.items() if value == usual]
    rule = "the experiments of a file form one study and agree on this"
    remedy = f"write {describe(usual)} as in {_few(others)}, or move it to a file and an --output-dir of its own"
    for name, value in values.items():
        if value != usual:
            given = "" if key in getattr(experiments[name], section).model_fields_set else " (the default)"
            path = ("experiments", name, section, key)
            diagnostics.problem_text(path, f"found {describe(value)}{given}; {rule}; {remedy}")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
