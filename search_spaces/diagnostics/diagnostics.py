"""How a problem in a configuration is told: where, what was found, what is expected, what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from search_spaces.errors import ConfigurationError
from search_spaces.yaml_reader.file import YamlDocument
from search_spaces.yaml_reader.nodes import KeyPath

_LONGEST_VALUE = 60
# What other programs call things that we have under another name.
_OTHER_WORDS = {
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
    """The problems, warnings and notes of one configuration, gathered so that all can be told at once."""

    def __init__(self, document: YamlDocument) -> None:
        """Begin without any; the document gives each message its file and line."""
        self._document = document
        self._problems: list[tuple[int, str]] = []
        self._notes: list[tuple[int, str]] = []
        self._warnings: list[tuple[int, str]] = []
        self._unsound: set[KeyPath] = set()

    def problem(self, path: Sequence[str | int], found: object, expected: str, remedy: str) -> None:
        """Record that the value at a path of keys breaks a rule by itself, and what to do about it."""
        self.broken(path, f"found {describe(found)}; {expected}; {remedy}")

    def missing(self, path: Sequence[str | int], expected: str, remedy: str) -> None:
        """Record that a key is not there."""
        self.broken(path, f"missing; {expected}; {remedy}")

    def broken(self, path: Sequence[str | int], text: str) -> None:
        """Record, in words of its own, that a key's value is unusable."""
        self._unsound.add(tuple(path))
        self.problem_text(path, text)

    def problem_text(self, path: Sequence[str | int], text: str) -> None:
        """Record a problem of a key itself, or of how it goes with others; its value stays usable."""
        self._problems.append((self._line(path), self._placed(path, text)))

    def adopt(self, problems: Iterable[str]) -> None:
        """Record problems that name another file already; each is told once."""
        known = {text for _, text in self._problems}
        self._problems.extend((self._line(()), text) for text in problems if text not in known)

    def note(self, path: Sequence[str | int], text: str) -> None:
        """Record something that is allowed but may not be meant."""
        self._notes.append((self._line(path), self._placed(path, text)))

    def warning(self, path: Sequence[str | int], text: str) -> None:
        """Record something that is legal but senseless, such as a setting that can never act."""
        self._warnings.append((self._line(path), self._placed(path, text)))

    def is_sound(self, path: Sequence[str | int]) -> bool:
        """Return whether neither a key's value nor a mapping around it is wrong by itself."""
        return not any(tuple(path[:end]) in self._unsound for end in range(1, len(path) + 1))

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes, in the order of the file."""
        return _in_order(self._notes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, in the order of the file."""
        return _in_order(self._warnings)

    def raise_problems(self) -> None:
        """Raise all problems at once, in the order of the file.

        Raises:
            ConfigurationError: If there is any problem.
        """
        if self._problems:
            raise ConfigurationError(_in_order(self._problems))

    def _line(self, path: Sequence[str | int]) -> int:
        return self._document.line(path) or 0

    def _placed(self, path: Sequence[str | int], text: str) -> str:
        keys = ".".join(_key_text(key) for key in path)
        return f"{self._document.place(path)}{keys}{': ' if keys else ''}{text}"


def describe(value: object) -> str:
    """Return a value as a message shows it: short, lists and mappings by what they are."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 3] + "..."
    return f"the list {text}" if isinstance(value, list | tuple) else text


def nearest(name: object, choices: Iterable[str]) -> str | None:
    """Return the choice that a name was probably meant to be, or None if none is near."""
    by_folded = {_folded(choice): choice for choice in choices}
    other_word = by_folded.get(_OTHER_WORDS.get(_folded(str(name)), ""))
    if other_word:
        return other_word
    near = difflib.get_close_matches(_folded(str(name)), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def suggest(name: object, choices: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` if a choice is near, else the list of what there is."""
    choices = list(choices)
    near = nearest(name, choices) if isinstance(name, str) else None
    return f"did you mean {near!r}?" if near else f"write one of {', '.join(choices)}"


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


def _key_text(key: str | int) -> str:
    text = str(key)
    return text if _PLAIN_KEY.fullmatch(text) and text.isprintable() else repr(text)


def _in_order(texts: list[tuple[int, str]]) -> tuple[str, ...]:
    # By line only: what is found at the same place keeps the order in which it was found.
    return tuple(text for _, text in sorted(texts, key=lambda item: item[0]))
