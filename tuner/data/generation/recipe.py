"""The recipe of a generated dataset: datasets with the same recipe are byte-identical."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import parse_json, read_bytes
from tuner.data.generation.font_search import font_digest
from tuner.data.rendering.fonts import Font

RECIPE_FILE = "recipe.json"

# Increment this whenever the same recipe gives different images.
_GENERATOR_VERSION = 1

_MIN_SAMPLES = 10
_MAX_SAMPLES = 10_000_000
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Recipe:
    """The parameters of a generated dataset; `fonts` contains the name and the file digest of each font."""

    generator_version: int
    samples: int
    test_samples: int
    seed: int
    fonts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, fonts: Sequence[Font], *, samples: int, test_samples: int, seed: int) -> Recipe:
        """Return the recipe of a dataset rendered in `fonts`."""
        digests = {path: font_digest(Font("", path)) for path in {font.path for font in fonts}}
        pairs = tuple((font.name, digests[font.path]) for font in fonts)
        return cls(_GENERATOR_VERSION, samples, test_samples, seed, pairs)

    @classmethod
    def read(cls, folder: Path) -> Recipe | None:
        """Read the recipe of the dataset in `folder`; return None if it is missing or damaged."""
        try:
            content = parse_json(read_bytes(folder / RECIPE_FILE))
            return cls(**{**content, "fonts": tuple(map(tuple, content["fonts"]))})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def as_json(self) -> str:
        """Format the recipe as the text of the recipe file."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def splits(self) -> dict[str, int]:
        """Number of samples per split; do not reorder the splits, since their positions seed the random numbers."""
        train = self.samples * 4 // 5
        return {"train": train, "val": self.samples - train, "test": self.test_samples}

    @property
    def total(self) -> int:
        """Number of samples in all splits."""
        return self.samples + self.test_samples


def check_recipe_numbers(*, samples: int, test_samples: int, seed: int) -> None:
    """Raise ConfigurationError with a problem for each number that is out of range."""
    ranges = (
        ("samples", samples, _MIN_SAMPLES, _MAX_SAMPLES),
        ("test_samples", test_samples, 1, _MAX_SAMPLES),
        ("seed", seed, 0, _MAX_SEED),
    )
    problems = [
        f"{name}: found {value!r}; expected a whole number from {low:,} to {high:,}"
        for name, value, low, high in ranges
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high
    ]
    if problems:
        raise ConfigurationError(problems)
