"""The terms of a study: what all of its trials agree on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from optuna.study import StudyDirection

# Where the dataset was found last: it may move, its fingerprint tells whether it is still the same.
_DATASET_PLACE = "metadata_path"
_DIGEST_CHARACTERS_SHOWN = 12


@dataclass(frozen=True)
class StudyTerms:
    """What all trials of a study must have in common to be comparable.

    Attributes:
        monitor: The metric that the study optimizes.
        mode: ``max`` or ``min``.
        seed: The study's seed.
        dataset: ``fingerprint`` of the content, ``train_split``, ``val_split``; ``metadata_path`` (where it
            was found) may differ from one run to the next.
        model_definitions_digest: Hash of the model definitions that the study uses.
        versions: Of Python and the libraries, by name; for information.
    """

    monitor: str
    mode: str
    seed: int
    dataset: Mapping[str, Any]
    model_definitions_digest: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def direction(self) -> StudyDirection:
        """Optuna's name for the mode."""
        return StudyDirection.MAXIMIZE if self.mode == "max" else StudyDirection.MINIMIZE

    def as_dict(self) -> dict[str, Any]:
        """Return the terms as the database gives them back: tuples become lists, and so on."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        plain: dict[str, Any] = json.loads(json.dumps(data, default=dict))
        return plain

    def changes(self, now: StudyTerms) -> list[str]:
        """Say what other terms change about these; where the dataset is and the versions may differ."""
        old, new = self._compared(), now._compared()
        return [
            f"{what} was {_shown(old.get(what))} when it began and is {_shown(new.get(what))} now"
            for what in dict.fromkeys((*old, *new))
            if old.get(what) != new.get(what)
        ]

    def _compared(self) -> dict[str, Any]:
        """Return what must not change, under the names that users know."""
        data = self.as_dict()
        dataset = {f"the dataset's {name}": value for name, value in data["dataset"].items()}
        dataset.pop(f"the dataset's {_DATASET_PLACE}", None)
        return {
            "early_stopping.monitor": data["monitor"],
            "early_stopping.mode": data["mode"],
            "training.seed": data["seed"],
            "the models' definitions (digest)": data["model_definitions_digest"],
            **dataset,
        }


def _shown(value: object) -> str:
    """Shorten digests: nobody reads 64 digits, and the beginnings tell them apart."""
    if isinstance(value, str) and len(value) == 64:
        return repr(value[:_DIGEST_CHARACTERS_SHOWN])
    return repr(value)
