"""The recipe of a generated dataset: datasets with the same recipe are byte-identical."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import features

from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import parse_json, read_bytes
from tuner.data.generation.fonts import PINNED_DESIGN, Font, font_digest, shaping_direction
from tuner.data.generation.stable_random import StableRandom
from tuner.data.metadata import UNSEEN_SPLIT
from tuner.data.vocabulary import (
    DEFAULT_MAX_LENGTH,
    KHMER_DIGITS,
    MAX_LABEL_LENGTH,
    Vocabulary,
    character_problems,
    split_characters,
)

_FILE_NAME = re.compile(r"\S+\.[a-z][a-z0-9]{1,4}|\S*[^\W\d]/[^\W\d]\S*")
_MAX_FILE_BYTES = 1_000_000


def read_characters(text_or_file: str) -> tuple[str, ...]:
    """Return the characters of a text, or of the UTF-8 text in an existing file; white space is ignored.

    Raises:
        ConfigurationError: They are not the characters of a vocabulary, or need libraqm, which is missing.
        OSError: The file cannot be read.
    """
    where, text, hint = "--characters", text_or_file, f" (there is no file {text_or_file[:40]!r})"
    if os.path.isfile(text_or_file):
        where, hint = text_or_file, ""
        try:
            text = read_bytes(text_or_file, _MAX_FILE_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{where}: found other bytes; expected UTF-8; save the file as UTF-8") from None
    elif _FILE_NAME.fullmatch(text):
        expected = "expected a file, or the characters themselves"
        remedy = "correct the path, or put spaces between the characters"
        raise ConfigurationError(f"{where}: found no file {text!r}; {expected}; {remedy}")
    characters = tuple(split_characters(text))
    if problems := character_problems(characters):
        raise ConfigurationError([f"{where}: {problem}{hint}" for problem in problems])
    if shaping_direction(characters) and not features.check("raqm"):
        raise ConfigurationError(
            f"{where}: found characters whose shape depends on their neighbours; expected Pillow to find libraqm for "
            "them; install it (on Debian libfribidi0, or libraqm0), or choose other characters"
        )
    return characters


RECIPE_FILE = "recipe.json"

# Increment this whenever the same recipe gives different images.
_GENERATOR_VERSION = 1

_RANGES = {
    "samples": (10, 10_000_000),
    "test_samples": (1, 10_000_000),
    "seed": (0, 2**32 - 1),
    "max_length": (1, MAX_LABEL_LENGTH),
    "hold_out_fonts": (0, 1000),
}


@dataclass(frozen=True)
class Recipe:
    """The parameters of a generated dataset.

    `fonts` contains the name, the file digest and the design of each font; the pinned fonts have no design there.
    """

    generator_version: int
    samples: int
    test_samples: int
    seed: int
    fonts: tuple[tuple[str, ...], ...]
    characters: tuple[str, ...] = tuple(KHMER_DIGITS)
    max_length: int = DEFAULT_MAX_LENGTH
    hold_out_fonts: int = 0

    @classmethod
    def of(cls, fonts: Sequence[Font], vocabulary: Vocabulary, **numbers: int) -> Recipe:
        """Return the recipe of a dataset; `numbers` are the other fields.

        Raises:
            ConfigurationError: No design would remain for training.
        """
        designs = sorted({font.design for font in fonts})
        if numbers["hold_out_fonts"] >= len(designs):
            raise ConfigurationError(
                f"--hold-out-fonts: found {numbers['hold_out_fonts']}; expected less than the number of designs, "
                f"{len(designs)} ({', '.join(designs)}); add fonts with --fonts system or --fonts-dir"
            )
        digests = {path: font_digest(Font("", path)) for path in {font.path for font in fonts}}
        entries = tuple((font.name, digests[font.path], *([font.design] if font.path else [])) for font in fonts)
        return cls(_GENERATOR_VERSION, fonts=entries, characters=vocabulary.characters, **numbers)

    @classmethod
    def read(cls, folder: Path) -> Recipe | None:
        """Read the recipe of the dataset in `folder`; return None if it is missing or damaged."""
        try:
            content = parse_json(read_bytes(folder / RECIPE_FILE))
            characters = tuple(content.get("characters", KHMER_DIGITS))
            return cls(**{**content, "fonts": tuple(map(tuple, content["fonts"])), "characters": characters})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def as_json(self) -> str:
        """Format the recipe as the text of the recipe file, without optional parameters that have their default."""
        values = dataclasses.asdict(self).items()
        content = {name: value for name, value in values if value != getattr(Recipe, name, None)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @property
    def held_out_designs(self) -> list[str]:
        """The designs that only the split `unseen` has, chosen by the seed."""
        designs = sorted({(*entry, PINNED_DESIGN)[2] for entry in self.fonts})
        rng = StableRandom(self.seed, 0, 0, 1)  # no sample has this key
        return sorted(designs.pop(rng.below(len(designs))) for _ in range(self.hold_out_fonts))

    @property
    def splits(self) -> dict[str, int]:
        """Number of samples per split; do not reorder the splits, since their positions seed the random numbers."""
        train = self.samples * 4 // 5
        splits = {"train": train, "val": self.samples - train, "test": self.test_samples}
        return splits | {UNSEEN_SPLIT: self.test_samples} if self.hold_out_fonts else splits

    @property
    def total(self) -> int:
        """Number of samples in all splits."""
        return sum(self.splits.values())


def check_recipe_numbers(**numbers: int) -> None:
    """Raise ConfigurationError with a problem for each number that is out of range."""
    problems = [
        f"{name}: found {value!r}; expected a whole number from {_RANGES[name][0]:,} to {_RANGES[name][1]:,}"
        for name, value in numbers.items()
        if not isinstance(value, int) or isinstance(value, bool) or not _RANGES[name][0] <= value <= _RANGES[name][1]
    ]
    if problems:
        raise ConfigurationError(problems)
