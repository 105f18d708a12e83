"""Reading the characters of a generated dataset from a text or a file."""

from __future__ import annotations

import os
import re

from PIL import features

from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import read_bytes
from tuner.data.rendering.fonts import shaping_direction
from tuner.data.vocabulary import character_problems, split_characters

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
