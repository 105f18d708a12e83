"""The invariants of a study: what all of its trials have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from optuna.study import StudyDirection

from search_spaces.model_definitions import ModelDefinition, definition_changes

# The dataset may be moved; its fingerprint tells whether it is still the same.
_DATASET_PLACES = ("metadata_path", "image_folder")
_FINGERPRINT = "the dataset's fingerprint"
_DIGEST_CHARACTERS_SHOWN = 12


@dataclass(frozen=True)
class StudyInvariants:
    """What all trials of a study must have in common to be comparable.

    Attributes:
        monitor: The metric that the study optimizes.
        mode: ``max`` or ``min``.
        seed: The study's seed.
        dataset: ``fingerprint`` of the content, ``train_split``, ``val_split``; ``metadata_path`` (where it
            was found) and ``image_folder`` (where its first image was) may differ from one run to the next.
        models: The definition of every model that the study knows, by name, as plain data. The same name means the
            same network in all of its trials; later runs may add names.
        versions: Of Python and the libraries, by name; for information.
    """

    monitor: str
    mode: str
    seed: int
    dataset: Mapping[str, str]
    models: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def direction(self) -> StudyDirection:
        """Optuna's name for the mode."""
        return StudyDirection.MAXIMIZE if self.mode == "max" else StudyDirection.MINIMIZE

    def as_dict(self) -> dict[str, Any]:
        """Return plain data as the database returns it: tuples become lists, and so on."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        plain: dict[str, Any] = json.loads(json.dumps(data, default=dict))
        return plain

    @property
    def definitions(self) -> dict[str, ModelDefinition]:
        """The definition of every model that the study knows."""
        return {name: ModelDefinition.model_validate(data) for name, data in self.models.items()}

    def changes(self, now: StudyInvariants) -> list[str]:
        """Return what differs in other invariants; the versions and the path of the dataset may differ."""
        old, new = self._compared(), now._compared()
        return [
            f"{what} was {_shown(old.get(what))} when it began and is {_shown(new.get(what))} now"
            + (self._other_images(now) if what == _FINGERPRINT else "")
            for what in dict.fromkeys((*old, *new))
            if old.get(what) != new.get(what)
        ] + definition_changes(self.definitions, now.definitions)

    def extended(self, now: StudyInvariants) -> StudyInvariants:
        """Return these invariants with the further models, and the path of the dataset, of others."""
        places = {name: value for name, value in now.dataset.items() if name in _DATASET_PLACES}
        return replace(self, models={**now.models, **self.models}, dataset={**self.dataset, **places})

    def _other_images(self, now: StudyInvariants) -> str:
        """Say that the images are now read from another folder; nothing if they are not."""
        before, after = (dataset.get("image_folder") for dataset in (self.dataset, now.dataset))
        if after is None or before == after:
            return ""
        were = f"were read from {before}" if before else "may have been read from the working directory"
        return f": its images {were} and are read from {after} now; name a metadata file beside the former to continue"

    def _compared(self) -> dict[str, Any]:
        """Return what must not change, by the names in the configuration file."""
        data = self.as_dict()
        dataset = {f"the dataset's {name}": value for name, value in data["dataset"].items()}
        for place in _DATASET_PLACES:
            dataset.pop(f"the dataset's {place}", None)
        return {
            "early_stopping.monitor": data["monitor"],
            "early_stopping.mode": data["mode"],
            "training.seed": data["seed"],
            **dataset,
        }


def _shown(value: object) -> str:
    """Shorten digests: nobody reads 64 digits, and the beginnings tell them apart."""
    if isinstance(value, str) and len(value) == 64:
        return repr(value[:_DIGEST_CHARACTERS_SHOWN])
    return repr(value)
