"""What a command is, and the options that commands share; imports nothing heavy."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from studies import SearchRequest

STORAGE_VARIABLE = "KHMER_TUNER_STORAGE"
DEVICES = ("auto", "cpu", "cuda")
SAMPLERS = ("tpe", "random", "gp")
PRUNERS = ("quantile", "hyperband", "none")
LARGEST_SEED = 2**32 - 1
MOST_WORKERS = 256
MOST_TRIALS = 1_000_000


Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Command(Generic[Prepared]):
    """A command of ``khmer-tuner``.

    Attributes:
        name: The word after ``khmer-tuner``.
        summary: What it does, in a line.
        examples: Command lines that run as they are, shown by ``--help``.
        add_options: Adds its options to its parser.
        prepare: Loads and checks all input; nothing is created. Its error reports all problems together.
        run: Does the work with the options and what was prepared; returns the exit code.
    """

    name: str
    summary: str
    examples: str
    add_options: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace], Prepared]
    run: Callable[[argparse.Namespace, Prepared], int]


@dataclass(frozen=True)
class Unusable:
    """Stands for an option's value that cannot be used, so that all problems are reported together."""

    problem: str


def whole_number(low: int, high: int) -> Callable[[str], int | Unusable]:
    """Return the reader of an option that takes a whole number from `low` to `high`."""

    def read(text: str) -> int | Unusable:
        # int() also takes other scripts' digits, spaces and underscores.
        plain = text.removeprefix("-")
        if plain.isascii() and plain.isdigit() and low <= int(text) <= high:
            return int(text)
        return Unusable(f"found {text!r}; expected a whole number from {low:,} to {high:,}")

    return read


def worker_count(text: str) -> int | str | Unusable:
    """Read an option that takes a number of workers, or leaves it to a measurement."""
    if text == "auto":
        return text
    number = whole_number(1, MOST_WORKERS)(text)
    return Unusable(f"{number.problem}, or auto") if isinstance(number, Unusable) else number


def one_of(*choices: str) -> Callable[[str], str | Unusable]:
    """Return the reader of an option that takes one of some words."""

    def read(text: str) -> str | Unusable:
        return text if text in choices else Unusable(f"found {text!r}; {suggestion(text, choices)}")

    return read


def share(text: str) -> float | Unusable:
    """Read an option that takes a number above 0 and below 1."""
    number = _positive_number(text)
    return number if 0 < number < 1 else Unusable(f"found {text!r}; expected a number above 0 and below 1")


def seconds(text: str) -> float | Unusable:
    """Read an option that takes a positive number of seconds."""
    return _positive_number(text) or Unusable(f"found {text!r}; expected a number of seconds above 0")


def _positive_number(text: str) -> float:
    """Return a finite number above 0; 0 if the text is none."""
    try:
        # float() also takes other scripts' digits.
        number = float(text) if text.isascii() else 0.0
    except ValueError:
        return 0.0
    return number if 0 < number < math.inf else 0.0


def filled(text: str) -> str | Unusable:
    """Read an option that must not be empty: an unset variable in a script gives an empty one."""
    return text if text.strip() else Unusable(f"found {text!r}; it is empty: write a value or leave the option out")


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` if a choice is near, else all of them."""
    from search_spaces.diagnostics.diagnostics import nearest  # only now: what is spelt right has no need of it

    choices = list(choices)
    begun = [choice for choice in choices if len(word) > 2 and choice.startswith(word)]
    near = begun[0] if begun else nearest(word, choices)
    return f"did you mean {near!r}?" if near else f"choose from {', '.join(choices)}"


def add_study_options(parser: argparse.ArgumentParser, *, study_default: str | None = None) -> None:
    """Add what says which study is meant."""
    group = parser.add_argument_group("the study")
    group.add_argument(
        "--output-dir",
        metavar="DIR",
        type=filled,
        default="training_output",
        help="its folder (default: %(default)s)",
    )
    told = f" (default: {study_default})" if study_default else " (default: the folder's)"
    group.add_argument("--study", metavar="NAME", type=filled, default=study_default, help=f"its name{told}")
    group.add_argument(
        "--storage",
        metavar="URL",
        type=filled,
        default=os.environ.get(STORAGE_VARIABLE) or None,
        help=f"where it is kept (default: ${STORAGE_VARIABLE}, which hides a password from other users, "
        "else study.db in its folder)",
    )


def add_device_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--device``; without a default it overrides the configuration."""
    told = f"default: {default}" if default else "default: as the configuration says"
    parser.add_argument(
        "--device", metavar="D", type=one_of(*DEVICES), default=default, help=f"auto, cpu or cuda ({told})"
    )


def add_metadata_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--metadata`` of the commands that train what a study owes."""
    parser.add_argument(
        "--metadata",
        metavar="P",
        type=filled,
        help="the dataset's metadata.yaml on this machine (default: where the study says)",
    )


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint",
        metavar="P",
        type=filled,
        help="the model (default: the best of the study in --output-dir)",
    )


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    parser.add_argument(
        "--workers",
        metavar="N",
        type=worker_count,
        default=1,
        help="processes that train side by side on this machine; auto measures for some seconds how many are fastest "
        "(default: %(default)s, whose results repeat to the same bits)",
    )


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--results-file`` of the commands that train."""
    parser.add_argument(
        "--results-file",
        metavar="P",
        type=filled,
        help="where results go (default: hyperparameter_tuning_results_{timestamp}.json here)",
    )


def add_until_targets_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--until-targets``."""
    parser.add_argument(
        "--until-targets",
        action="store_true",
        help="begin no further trial once one has met all targets of the configuration",
    )


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a study searches; the choice is fixed when its search begins."""
    group = parser.add_argument_group("the open search (fixed when a study's search begins)")
    group.add_argument(
        "--sampler", metavar="S", type=one_of(*SAMPLERS), help="tpe, random or gp (default: the study's, else tpe)"
    )
    group.add_argument(
        "--pruner",
        metavar="P",
        type=one_of(*PRUNERS),
        help="quantile, hyperband or none: what ends hopeless trials "
        "(default: the study's, else quantile; none with gp)",
    )
    group.add_argument(
        "--prune-share",
        metavar="X",
        type=share,
        help="for quantile: the share of the others that a trial must keep up with when its grace ends (default: 0.6)",
    )
    group.add_argument(
        "--prune-grace",
        metavar="N",
        type=whole_number(1, 100_000),
        help="epochs before a trial is first compared (default: its early_stopping_patience)",
    )


def search_request(options: argparse.Namespace, **trials: int) -> SearchRequest:
    """Return what the options of `add_search_options` ask for, with how many trials."""
    from studies import PrunerName, SamplerName, SearchRequest

    return SearchRequest(
        sampler=None if options.sampler is None else SamplerName(options.sampler),
        pruner=None if options.pruner is None else PrunerName(options.pruner),
        prune_share=options.prune_share,
        prune_grace=options.prune_grace,
        **trials,
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else to standard output")
