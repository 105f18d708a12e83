"""What a command is, and the options that commands share; imports nothing heavy."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from search_spaces.experiments.overrides import Overrides
    from studies import SearchRequest

    _Options = argparse._ActionsContainer

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
    """A command of ``khmer-tuner``, which is a module of ``tuner.cli.commands``.

    Attributes:
        module: The module's name; its last part is the word after ``khmer-tuner``.
        text: The module's docstring: what the command does, in a line; then examples, shown by ``--help``.
        add_options: Adds its options to its parser.
        prepare: Loads and checks all input; nothing is created. Its error reports all problems together.
        run: Does the work with the options and what was prepared; returns the exit code.
    """

    module: str
    text: str | None
    add_options: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace], Prepared]
    run: Callable[[argparse.Namespace, Prepared], int]

    @property
    def name(self) -> str:
        """The word after ``khmer-tuner``."""
        return self.module.rpartition(".")[2]

    @property
    def description(self) -> str:
        """What it does, in a sentence."""
        return (self.text or "").partition("\n\n")[0]

    @property
    def examples(self) -> str:
        """Command lines that run as they are, below a heading, and remarks."""
        return (self.text or "").partition("\n\n")[2].rstrip()


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
    number = _number(text)
    return number if 0 < number < 1 else Unusable(f"found {text!r}; expected a number above 0 and below 1")


def seconds(text: str) -> float | Unusable:
    """Read an option that takes a positive number of seconds."""
    number = _number(text)
    return number if 0 < number < math.inf else Unusable(f"found {text!r}; expected a number of seconds above 0")


def _number(text: str) -> float:
    try:
        return float(text) if text.isascii() else math.nan  # float() also takes other scripts' digits
    except ValueError:
        return math.nan


def filled(text: str) -> str | Unusable:
    """Read an option that must not be empty: an unset variable in a script gives an empty one."""
    return text if text.strip() else Unusable(f"found {text!r}; it is empty: write a value or leave the option out")


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` if a choice is near, else all of them."""
    from search_spaces.diagnostics.diagnostics import nearest  # only now: what is spelt right has no need of it

    choices = list(choices)
    prefixed = [choice for choice in choices if len(word) > 2 and choice.startswith(word)]
    near = prefixed[0] if prefixed else nearest(word, choices)
    return f"did you mean {near!r}?" if near else f"choose from {', '.join(choices)}"


def add_option(
    parser: _Options,
    name: str,
    metavar: str,
    read: Callable[[str], object],
    help: str,
    *,
    default: object = None,
    required: bool = False,
) -> None:
    """Add an option that takes a value; its help shows the default, unless it describes the default itself."""
    if default is not None and "(default: " not in help:
        help = f"{help} (default: %(default)s)"
    parser.add_argument(name, metavar=metavar, type=read, default=default, required=required, help=help)


def add_flag(parser: _Options, name: str, help: str) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action="store_true", help=help)


def add_study_options(parser: argparse.ArgumentParser, *, json: bool = False, study_default: str | None = None) -> None:
    """Add the options that name a study, and ``--json`` if the command can print it."""
    if json:
        add_flag(parser, "--json", "print JSON and nothing else to standard output")
    group = parser.add_argument_group("the study")
    add_option(group, "--output-dir", "DIR", filled, "its output folder", default="training_output")
    name = "its name" if study_default else "its name (default: the folder's)"
    add_option(group, "--study", "NAME", filled, name, default=study_default)
    storage = (
        f"its storage (default: ${STORAGE_VARIABLE}, which hides a password from other users, else study.db in its "
        "folder)"
    )
    add_option(group, "--storage", "URL", filled, storage, default=os.environ.get(STORAGE_VARIABLE) or None)


def add_device_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--device``; without a default it overrides the configuration."""
    shown = "auto, cpu or cuda" if default else "auto, cpu or cuda (default: as the configuration says)"
    add_option(parser, "--device", "D", one_of(*DEVICES), shown, default=default)


def add_metadata_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--metadata`` of the commands that train the pending trials of a study."""
    add_option(
        parser, "--metadata", "P", filled, "the dataset's metadata.yaml on this machine (default: where the study says)"
    )


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``."""
    add_option(parser, "--checkpoint", "P", filled, "the model (default: the best of the study in --output-dir)")


def add_experiments_options(parser: argparse.ArgumentParser, *, config: str | None = None) -> None:
    """Add the options that name experiments, with a default for their file."""
    add_option(
        parser,
        "--config",
        "P",
        filled,
        "the experiments, looked up here, then in the installed package",
        default=config,
    )
    parser.add_argument("--experiments", metavar="A", nargs="+", help="only these of them (default: all)")
    seed = "seed of the experiments (default: as the configuration says)"
    add_option(parser, "--seed", "S", whole_number(0, LARGEST_SEED), seed)


def add_set_option(parser: argparse.ArgumentParser, of: str) -> None:
    """Add ``--set``; `of` names the trials whose settings it overrides."""
    text = f"a setting of {of}, as section.key in a file, for example training.num_epochs=5; may be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)


def overrides_of(options: argparse.Namespace, *, for_trials: bool = False) -> Overrides:
    """Return what ``--set`` gives; the arguments and errors are those of `parse_overrides`."""
    from search_spaces import ConfigurationError, parse_overrides

    overrides = parse_overrides(options.set, for_trials=for_trials)
    twice = [name for name in ("seed", "device") if vars(options).get(name) and name in overrides.get("training", {})]
    if twice:
        raise ConfigurationError([f"--set training.{name}: is also set by --{name}; keep one" for name in twice])
    return overrides


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    workers = (
        "processes that train in parallel on this machine; auto measures for some seconds how many are fastest "
        "(default: %(default)s, whose results repeat to the same bits)"
    )
    add_option(parser, "--workers", "N", worker_count, workers, default=1)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what the commands have in common that train a study."""
    add_flag(parser, "--until-targets", "start no further trial once one has met all targets of the configuration")
    results_file = (
        "the results file, over an earlier one (default: hyperparameter_tuning_results_{timestamp}.json here)"
    )
    add_option(parser, "--results-file", "P", filled, results_file)
    add_workers_option(parser)
    add_device_option(parser)


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add how a study searches, which is fixed when its search starts."""
    group = parser.add_argument_group("the open search (fixed when a study's search starts)")
    space = "what the search may vary (default: the study's, else the packaged config/search_space.yaml)"
    add_option(group, "--space", "P", filled, space)
    sampler = "tpe, random or gp (default: the study's, else tpe)"
    add_option(group, "--sampler", "S", one_of(*SAMPLERS), sampler)
    pruner = (
        "quantile, hyperband or none: the rule that prunes unpromising trials (default: the study's, else quantile; "
        "none with gp)"
    )
    add_option(group, "--pruner", "P", one_of(*PRUNERS), pruner)
    prune_share = (
        "for quantile: the share of the other trials that a trial must not be worse than when its grace period ends "
        "(default: 0.6)"
    )
    add_option(group, "--prune-share", "X", share, prune_share)
    prune_grace = "epochs before a trial is first compared (default: its early_stopping_patience)"
    add_option(group, "--prune-grace", "N", whole_number(1, 100_000), prune_grace)


def search_request(
    options: argparse.Namespace, overrides: Overrides | None = None, *, at_least: int = 0, more: int = 0
) -> SearchRequest:
    """Return what the options of `add_search_options` ask for, with how many trials and the overrides for them."""
    from search_spaces.experiments.schema import settings_by_field
    from search_spaces.training_config import STUDY_FIELDS
    from studies import PrunerName, SamplerName, SearchRequest

    return SearchRequest(
        sampler=None if options.sampler is None else SamplerName(options.sampler),
        pruner=None if options.pruner is None else PrunerName(options.pruner),
        prune_share=options.prune_share,
        prune_grace=options.prune_grace,
        fixed={name: value for name, value in settings_by_field(overrides or {}).items() if name not in STUDY_FIELDS},
        at_least=at_least,
        more=more,
    )
