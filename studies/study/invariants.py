"""The invariants of a study: the settings that all of its trials share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from optuna.study import StudyDirection

from search_spaces.model_definitions import ModelDefinition, definition_changes
from search_spaces.training_config import DATASET_FIELDS

# Not compared: the dataset may be moved, and the fingerprint also covers its vocabulary.
_NOT_COMPARED = ("metadata_path", "image_folder", *DATASET_FIELDS)
_FINGERPRINT = "the dataset's fingerprint"
_DIGEST_CHARACTERS_SHOWN = 12


@dataclass(frozen=True)
class StudyInvariants:
    """The settings that all trials of a study must share to be comparable.

    Attributes:
        monitor: The metric that the study optimizes.
        mode: ``max`` or ``min``.
        seed: The study's seed.
        dataset: ``fingerprint`` of the content, ``train_split``, ``val_split``, ``vocab_size`` and
            ``max_sequence_length``; also ``metadata_path`` and ``image_folder`` (of the first image), which may differ
            between runs.
        models: The model definitions as plain data, keyed by model name. A name means the same network in all trials;
            later runs may add names.
        versions: Versions of Python and the libraries, keyed by name; trials may have been trained with others.
    """

    monitor: str
    mode: str
    seed: int
    dataset: Mapping[str, Any]
    models: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def direction(self) -> StudyDirection:
        """The mode as an Optuna study direction."""
        return StudyDirection.MAXIMIZE if self.mode == "max" else StudyDirection.MINIMIZE

    def as_dict(self) -> dict[str, Any]:
        """Convert the invariants to the data that the database returns: JSON data, with lists instead of tuples."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        plain: dict[str, Any] = json.loads(json.dumps(data, default=dict))
        return plain

    @property
    def definitions(self) -> dict[str, ModelDefinition]:
        """The model definitions, keyed by model name."""
        return {name: ModelDefinition.model_validate(data) for name, data in self.models.items()}

    def changes(self, now: StudyInvariants) -> list[str]:
        """Describe each difference from the current invariants, and how to undo it, in one line.

        Versions and dataset locations are ignored.
        """
        old, new = self._compared(), now._compared()
        texts = [
            f"{name} was {_shown(old.get(name))} when the study was created and is {_shown(new.get(name))} now"
            for name in dict.fromkeys((*old, *new))
            if name != _FINGERPRINT and old.get(name) != new.get(name)
        ] + definition_changes(self.definitions, now.definitions)
        dataset = [self._dataset_change(now)] if old.get(_FINGERPRINT) != new.get(_FINGERPRINT) else []
        return dataset + [f"{text}; restore the earlier value" for text in texts]

    def differences(self, now: StudyInvariants) -> list[str]:
        """Return the names of what makes the values of two studies incomparable: dataset, splits, metric, models."""
        old, new = self._compared(), now._compared()
        names = [name for name in old if name != "training.seed" and old[name] != new.get(name)]
        return names + definition_changes(self.definitions, now.definitions)

    def extended(self, now: StudyInvariants) -> StudyInvariants:
        """Return a copy with the additional models, and the locations and sizes of the current dataset."""
        current = {name: value for name, value in now.dataset.items() if name in _NOT_COMPARED}
        return replace(self, models={**now.models, **self.models}, dataset={**self.dataset, **current})

    def _dataset_change(self, now: StudyInvariants) -> str:
        """Describe in one line that the dataset has changed, with the image folders if they differ, and the remedy."""
        old, new = (_shown(dataset.get("fingerprint")) for dataset in (self.dataset, now.dataset))
        text = f"the dataset differs from the study's (fingerprint {new} instead of {old})"
        before, after = (dataset.get("image_folder") for dataset in (self.dataset, now.dataset))
        if after is not None and before != after:
            before = before or "another folder (probably the working directory)"
            text += f"; its images are in {after}, earlier in {before}"
        return f"{text}; use the study's dataset (--metadata or 'data.metadata_path')"

    def _compared(self) -> dict[str, Any]:
        """Return the settings that must not change, keyed by their names in the configuration file."""
        data = self.as_dict()
        dataset = {f"the dataset's {name}": value for name, value in data["dataset"].items()}
        for location in _NOT_COMPARED:
            dataset.pop(f"the dataset's {location}", None)
        return {
            "early_stopping.monitor": data["monitor"],
            "early_stopping.mode": data["mode"],
            "training.seed": data["seed"],
            **dataset,
        }


def _shown(value: object) -> str:
    """Format a value; of a digest, only the first characters are shown."""
    if isinstance(value, str) and len(value) == 64:
        return repr(value[:_DIGEST_CHARACTERS_SHOWN])
    return repr(value)
