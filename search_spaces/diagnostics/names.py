"""Which names experiments, studies, files and folders may have."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

_MAX_CHARACTERS = 64
# 64 characters of Khmer are 192 bytes; file systems end at 255, and suffixes such as ".lock" need room.
_MAX_BYTES = 200
_MAX_PART_BYTES = 255
# Linux ends at 4,096 and macOS at 1,024, and the study's own files are some folders below.
_MAX_PATH_BYTES = 900
_PUNCTUATION = "_-. "
ANY_SEARCH_TRIAL = "search_NNNN"  # stands for any name of a search trial, in messages
_SEARCH_TRIAL = re.compile(r"search_[0-9]{4,}")
_RESERVED_STARTS = ("study.db", ".study")
_RESERVED = ("artifacts", ".", "..")


def name_problem(name: object) -> str | None:
    """Say what is wrong with an experiment's or a study's name.

    Allowed are 1 to 64 letters, marks and digits of any script, ``_``, ``-``, ``.`` and space, in Unicode's
    composed form (NFC), except the names that the output folder needs itself.

    Args:
        name: The name; YAML and JSON can hold other things than text here.

    Returns:
        The rule that is broken and what to write instead, or None if the name is fine.
    """
    if not isinstance(name, str):
        example = f": '{name}'" if type(name) is int else ""
        return f"a name is text; put it in quotes{example}"
    return _length_problem(name) or _character_problem(name) or _reserved_problem(name)


def search_trial_name(number: int) -> str:
    """Return the name of the search trial of a number, also its folder's; experiments may not have such names."""
    return f"search_{number:04d}"


def is_search_trial_name(name: str) -> bool:
    """Return whether a name is one that `search_trial_name` gives."""
    return _SEARCH_TRIAL.fullmatch(name) is not None


def path_problem(path: Path) -> str | None:
    """Say why nothing should be written at a path, or return None; the disk is not looked at."""
    control = next((char for char in str(path) if unicodedata.category(char) == "Cc"), None)
    if control is not None:
        return f"found the character {control!a} in the path, which no name should have"
    if any(len(os.fsencode(part)) > _MAX_PART_BYTES for part in path.parts):
        return f"a file's or folder's name has at most {_MAX_PART_BYTES} bytes"
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        return f"a path has at most {_MAX_PATH_BYTES} bytes here"
    return None


def _length_problem(name: str) -> str | None:
    if not name:
        return "a name has 1 to 64 characters; write one"
    if len(name) > _MAX_CHARACTERS:
        return f"a name has at most 64 characters, this one has {len(name)}; write a shorter one"
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > _MAX_BYTES:
        return f"a name has at most {_MAX_BYTES} bytes as UTF-8, this one has {size}; write a shorter one"
    return None


def _character_problem(name: str) -> str | None:
    bad = dict.fromkeys(char for char in name if not _is_allowed(char))
    if bad:
        shown = " ".join(ascii(char) if not char.isprintable() else repr(char) for char in bad)
        return (
            "a name has only letters, marks and digits of any script, '_', '-', '.' and space; "
            f"leave out {shown} or write '_' instead"
        )
    if unicodedata.normalize("NFC", name) != name:
        composed = unicodedata.normalize("NFC", name)
        return f"a name is in Unicode's composed form (NFC); write {composed!r} ({len(composed)} characters)"
    if name != name.strip(" "):
        return "a name neither begins nor ends with a space; leave it out"
    if name.startswith("-"):
        return "a name beginning with '-' reads as an option on the command line; begin with a letter or digit"
    return None


def _is_allowed(char: str) -> bool:
    return char in _PUNCTUATION or unicodedata.category(char)[0] in "LMN"


def _reserved_problem(name: str) -> str | None:
    # macOS and some network folders do not tell upper case from lower case.
    folded = name.casefold()
    if folded in _RESERVED or folded.startswith(_RESERVED_STARTS):
        return "the output folder needs this name itself; choose another"
    if is_search_trial_name(folded):
        return "search trials are named search_0000, search_0001 and so on; choose another name"
    return None
