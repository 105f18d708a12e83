"""Messages about a configuration: location, the value found, the expected values, and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path

from search_spaces.errors import ConfigurationError
from search_spaces.yaml_reader.file import YamlDocument
from search_spaces.yaml_reader.nodes import KeyPath

Location = str | Sequence[str | int]

_MAX_VALUE_LENGTH = 60
KINDS_OF_FILES = {
    "experiments": "this looks like an experiments file; pass this file to --config",
    "models": "this looks like a model definitions file; set 'model.config_path' of an experiment to this file",
    "dataset_info": "this looks like a dataset's metadata; set 'data.metadata_path' of an experiment to this file",
    "space": "this looks like a search space; pass this file to --space",
}
# Common names in other programs for the settings and values of this program.
_SYNONYMS = {
    "categories": "choices",
    "ce": "crossentropy",
    "cosineannealing": "cosine",
    "cosineannealinglr": "cosine",
    "epochs": "num_epochs",
    "gpu": "cuda",
    "loss": "loss_type",
    "lr": "learning_rate",
    "max": "high",
    "maximize": "max",
    "maximum": "high",
    "min": "low",
    "minimize": "min",
    "minimum": "low",
    "options": "choices",
    "reducelronplateau": "plateau",
    "train_acc": "train_char_accuracy",
    "train_accuracy": "train_char_accuracy",
    "val_acc": "val_char_accuracy",
    "val_accuracy": "val_char_accuracy",
    "values": "choices",
}
_PLAIN_KEY = re.compile(r"[^\s./:'\"\\]+")


class Diagnostics:
    """The errors, warnings and notes about one configuration, collected so that all are reported together.

    A path is a sequence of keys, or a dotted name (``training.loss_type``) if no key contains a dot.
    """

    def __init__(self, document: YamlDocument) -> None:
        """Create the collection for a document, and record an error for each of the document's duplicate keys.

        Args:
            document: The configuration; provides the file and the line that each message names.
        """
        self._document = document
        self._root: KeyPath = ()
        self._errors = [(line, f"{document.path}:{line}: {text}") for line, text in document.duplicates]
        self._warnings: list[tuple[int, str]] = []
        self._notes: list[tuple[int, str]] = []
        self._invalid: set[KeyPath] = set()

    def below(self, *keys: str | int) -> Diagnostics:
        """Return a view of these diagnostics whose paths start below the given keys."""
        part = copy(self)
        part._root = (*self._root, *keys)
        return part

    @property
    def file(self) -> Path | None:
        """The file of the configuration; None if it was passed as a dictionary."""
        return self._document.path

    def error(self, path: Location, text: str) -> None:
        """Record an error about a key whose value is valid by itself, for example a conflict with another key."""
        self._add(self._errors, path, text)

    def invalid(self, path: Location, text: str) -> None:
        """Record an error about a key, and mark its value as invalid."""
        self._invalid.add(self._keys(path))
        self.error(path, text)

    def invalid_value(self, path: Location, found: object, expected: str, remedy: str) -> None:
        """Record an invalid value with the expected values ("expected ...") and the remedy."""
        self.invalid(path, f"found {describe(found)}; {expected}; {remedy}")

    def missing(self, path: Location, expected: str, remedy: str) -> None:
        """Record a missing key with the expected values ("expected ...") and the remedy."""
        self.invalid(path, f"missing; {expected}; {remedy}")

    def include(self, errors: Iterable[str]) -> None:
        """Record errors about another file, without duplicates; each text already contains its location."""
        known = {text for _, text in self._errors}
        self._errors.extend((self._document.line(()) or 0, text) for text in errors if text not in known)

    def warning(self, path: Location, text: str) -> None:
        """Record a warning about a valid setting that has no effect or is probably a mistake."""
        self._add(self._warnings, path, text)

    def note(self, path: Location, text: str) -> None:
        """Record a note about a key that is allowed but not used."""
        self._add(self._notes, path, text)

    def is_valid(self, *paths: Location) -> bool:
        """Return whether these keys, and the mappings that contain them, have no invalid value."""
        return not any(
            keys[:end] in self._invalid for keys in map(self._keys, paths) for end in range(1, len(keys) + 1)
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, in the order of their lines."""
        return _in_order(self._warnings)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes, in the order of their lines."""
        return _in_order(self._notes)

    def raise_errors(self) -> None:
        """Raise one exception with all recorded errors, if any, in the order of their lines.

        Raises:
            ConfigurationError: An error was recorded.
        """
        if self._errors:
            raise ConfigurationError(_in_order(self._errors))

    def location(self, path: Location) -> str:
        """Return the start of a message about a key: file, line and the key's path, with a colon and a space."""
        keys = self._keys(path)
        names = ".".join(map(_key_text, keys))
        return f"{self._document.location(keys)}{names}{': ' if names else ''}"

    def _add(self, messages: list[tuple[int, str]], path: Location, text: str) -> None:
        messages.append((self._document.line(self._keys(path)) or 0, self.location(path) + text))

    def _keys(self, path: Location) -> KeyPath:
        return (*self._root, *(path.split(".") if isinstance(path, str) else path))


def describe(value: object) -> str:
    """Format a value for a message, without the content of mappings and without the end of long values."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    if len(text) > _MAX_VALUE_LENGTH:
        text = text[: _MAX_VALUE_LENGTH - 3] + "..."
    return f"the list {text}" if isinstance(value, list | tuple) else text


def other_kind(config: Mapping[str, object], own_key: str) -> str | None:
    """Return a remedy if a file has the key of another kind of file than the one with the key `own_key`."""
    return next((remedy for key, remedy in KINDS_OF_FILES.items() if key in config and key != own_key), None)


def nearest(name: object, choices: Iterable[str]) -> str | None:
    """Return the choice with the most similar name or a known synonym of `name`; None if no choice is similar."""
    by_folded = {_folded(choice): choice for choice in choices}
    synonym = by_folded.get(_SYNONYMS.get(_folded(str(name)), ""))
    if synonym:
        return synonym
    near = difflib.get_close_matches(_folded(str(name)), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def suggest(name: object, choices: Iterable[str]) -> str:
    """Return the remedy for an unknown name: ``did you mean 'x'?`` if a choice is similar, else the list of choices."""
    choices = list(choices)
    near = nearest(name, choices) if isinstance(name, str) else None
    return f"did you mean {near!r}?" if near else f"use {'one of ' * (len(choices) > 1)}{', '.join(choices)}"


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


def _key_text(key: str | int) -> str:
    text = str(key)
    return text if _PLAIN_KEY.fullmatch(text) and text.isprintable() else repr(text)


def _in_order(texts: list[tuple[int, str]]) -> tuple[str, ...]:
    # By line only: messages about the same line keep their order.
    return tuple(text for _, text in sorted(texts, key=lambda item: item[0]))
