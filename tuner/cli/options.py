"""The command class, and the options that several commands share; no slow imports, so ``--help`` is fast."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from search_spaces.errors import ProblemCollector
    from search_spaces.experiments.overrides import Overrides
    from studies import EarlierStudy, SearchRequest

    _Options = argparse._ActionsContainer

STORAGE_VARIABLE = "KHMER_TUNER_STORAGE"
DEFAULT_OUTPUT_DIR = "training_output"
DEVICES = ("auto", "cpu", "cuda")
SAMPLERS = ("tpe", "random", "gp")
PRUNERS = ("quantile", "hyperband", "none")
LARGEST_SEED = 2**32 - 1
MOST_WORKERS = 256
MOST_THREADS = 1024
MOST_PARALLEL = 10_000
MOST_TRIALS = 1_000_000

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Command(Generic[Prepared]):
    """A command of ``khmer-tuner``, defined by a module of ``tuner.cli.commands``.

    Attributes:
        module: The module's name; its last part is the command's name.
        text: The module's docstring: one line that says what the command does, then the examples for ``--help``.
        add_options: Adds the command's options to a parser.
        prepare: Loads and checks all input; creates nothing, and raises all problems together.
        run: Executes the command with the options and the result of `prepare`; returns the exit code.
    """

    module: str
    text: str | None
    add_options: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace], Prepared]
    run: Callable[[argparse.Namespace, Prepared], int]

    @property
    def name(self) -> str:
        """The command's name on the command line."""
        return self.module.rpartition(".")[2].strip("_").replace("_", "-")

    @property
    def description(self) -> str:
        """One sentence that says what the command does."""
        return (self.text or "").partition("\n\n")[0]

    @property
    def examples(self) -> str:
        """Example command lines, which run as printed, and notes."""
        return (self.text or "").partition("\n\n")[2].rstrip()


@dataclass(frozen=True)
class InvalidValue:
    """The parsed value of an invalid option.

    The parser of a value returns it instead of raising, so that the problems of all options are reported together.
    """

    problem: str
    is_empty: bool = False


def whole_number(low: int, high: int) -> Callable[[str], int | InvalidValue]:
    """Return a parser of whole numbers from `low` to `high`."""

    def read(text: str) -> int | InvalidValue:
        # int() also accepts other scripts' digits, spaces and underscores.
        plain = text.removeprefix("-")
        if plain.isascii() and plain.isdigit() and low <= int(text) <= high:
            return int(text)
        return InvalidValue(f"found {text!r}; expected a whole number from {low:,} to {high:,}")

    return read


def one_of(*choices: str) -> Callable[[str], str | InvalidValue]:
    """Return a parser that accepts only the values in `choices`."""

    def read(text: str) -> str | InvalidValue:
        return text if text in choices else InvalidValue(f"found {text!r}; {suggestion(text, choices)}")

    return read


def above_zero(expected: str, *, below: float = math.inf) -> Callable[[str], float | InvalidValue]:
    """Return a parser of numbers above 0 and below a limit; its error message contains the description `expected`."""

    def read(text: str) -> float | InvalidValue:
        try:
            number = float(text) if text.isascii() else math.nan  # float() also accepts other scripts' digits
        except ValueError:
            number = math.nan
        return number if 0 < number < below else InvalidValue(f"found {text!r}; expected {expected}")

    return read


def non_empty(text: str) -> str | InvalidValue:
    """Accept a value unless it is blank; an unset variable in a script gives a blank value."""
    return text if text.strip() else InvalidValue(f"found {text!r}; expected a value that is not empty", is_empty=True)


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` if a choice is similar, else a list of all choices."""
    from search_spaces.diagnostics.diagnostics import nearest  # only misspelt values need this import

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
    """Add an option that takes a value; append the default to its help text, unless the text names it."""
    if default is not None and "(default: " not in help:
        help = f"{help} (default: %(default)s)"
    parser.add_argument(name, metavar=metavar, type=read, default=default, required=required, help=help)


def add_flag(parser: _Options, name: str, help: str) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action="store_true", help=help)


def add_study_options(
    parser: argparse.ArgumentParser,
    *,
    json: bool = False,
    study_default: str | None = None,
    named_in: str = "the output folder",
) -> None:
    """Add the options that identify a study, and ``--json`` if `json` is true."""
    if json:
        add_flag(parser, "--json", "print only JSON to standard output")
    group = parser.add_argument_group("study")
    add_option(group, "--output-dir", "DIR", non_empty, "output folder of the study", default=DEFAULT_OUTPUT_DIR)
    name = "study name" if study_default else f"study name (default: the name stored in {named_in})"
    add_option(group, "--study", "NAME", non_empty, name, default=study_default)
    storage = (
        f"Optuna storage URL (default: ${STORAGE_VARIABLE}, else study.db in the output folder); put a password in "
        "the variable or in ~/.pgpass, because other users can read the command line"
    )
    add_option(group, "--storage", "URL", non_empty, storage, default=os.environ.get(STORAGE_VARIABLE) or None)


def add_device_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--device``; without a default, the device of each configuration is used."""
    shown = "auto, cpu or cuda" if default else "auto, cpu or cuda (default: training.device of each configuration)"
    add_option(parser, "--device", "DEVICE", one_of(*DEVICES), shown, default=default)


def add_metadata_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--metadata`` for commands that train the pending trials of a study."""
    path = "the dataset's metadata.yaml on this machine (default: the path stored in the study)"
    add_option(parser, "--metadata", "FILE", non_empty, path)


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``."""
    help = "checkpoint, or a model from `export-model` (default: the best trial's checkpoint)"
    add_option(parser, "--checkpoint", "FILE", non_empty, help)


def add_experiments_options(parser: argparse.ArgumentParser, *, config: str | None = None) -> None:
    """Add the options that select experiments; `config` is the default file."""
    file = "YAML file with the experiments, searched in the working directory, then among the built-in files"
    add_option(parser, "--config", "FILE", non_empty, file, default=config)
    names = "use only these experiments of the file (default: all)"
    parser.add_argument("--experiments", metavar="NAME", nargs="+", help=names)
    seed = "random seed of the experiments (default: training.seed of the configuration)"
    add_option(parser, "--seed", "SEED", whole_number(0, LARGEST_SEED), seed)


def add_set_option(parser: argparse.ArgumentParser, action: str) -> None:
    """Add ``--set``; its help text starts with `action`, which says in which trials it changes a setting."""
    text = f"{action}, for example training.num_epochs=5; repeatable"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help=text)


def overrides_of(options: argparse.Namespace, *, for_trials: bool = False) -> Overrides:
    """Parse the settings of ``--set``; `parse_overrides` documents `for_trials` and the errors."""
    from search_spaces import ConfigurationError, parse_overrides

    overrides = parse_overrides(options.set, for_trials=for_trials)
    twice = [name for name in ("seed", "device") if vars(options).get(name) and name in overrides.get("training", {})]
    if twice:
        raise ConfigurationError([f"--set training.{name}: found with --{name}; remove one of them" for name in twice])
    return overrides


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    workers = "number of worker processes on this machine; a good start is one for each core, or 2 for each GPU"
    add_option(parser, "--workers", "N", whole_number(1, MOST_WORKERS), workers, default=1)


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    threads = (
        "PyTorch threads per worker, fixed when the training of the study starts; the last bits of CPU results depend "
        "on it (default: the study's number, else cores / workers)"
    )
    add_option(parser, "--threads", "N", whole_number(1, MOST_THREADS), threads)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that train a study and write a results file."""
    until_targets = "start no more trials once a trial has met all targets of the configuration"
    add_flag(parser, "--until-targets", until_targets)
    results_file = (
        "results file to write; an existing file is overwritten only if it is a results file (default: "
        "hyperparameter_tuning_results_{timestamp}.json in the working directory)"
    )
    add_option(parser, "--results-file", "FILE", non_empty, results_file)
    add_workers_option(parser)
    add_threads_option(parser)
    add_device_option(parser)


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the search settings, which are fixed once a study's search has started."""
    group = parser.add_argument_group("search settings (fixed once the search of the study has started)")
    space = "YAML file with the search space (default: the study's space, else the built-in config/search_space.yaml)"
    add_option(group, "--space", "FILE", non_empty, space)
    sampler = "Optuna sampler: tpe, random or gp (default: the study's sampler, else tpe)"
    add_option(group, "--sampler", "NAME", one_of(*SAMPLERS), sampler)
    pruner = (
        "rule that prunes unpromising trials: quantile, hyperband or none (default: the study's pruner, else quantile, "
        "or none for the gp sampler)"
    )
    add_option(group, "--pruner", "NAME", one_of(*PRUNERS), pruner)
    prune_share = (
        "quantile pruner: at the end of its grace period, a trial must be at least as good as this fraction of the "
        "other trials (default: 0.6)"
    )
    add_option(group, "--prune-share", "SHARE", above_zero("a number above 0 and below 1", below=1), prune_share)
    prune_grace = "grace period: epochs before a trial can be pruned (default: the trial's early stopping patience)"
    add_option(group, "--prune-grace", "N", whole_number(1, 100_000), prune_grace)
    parallelism = (
        "search trial n is sampled from and pruned against the trials numbered n - P and below, and starts once all of "
        "these have finished; so up to P search trials run at the same time, with the same results for any number of "
        "workers (default: the study's, else 1 for one worker, 2 x N for --workers N)"
    )
    add_option(group, "--parallelism", "P", whole_number(1, MOST_PARALLEL), parallelism)
    warm_start = (
        "let the search trials learn from the finished trials of earlier studies: output folders other than "
        "--output-dir, or files of `export --format study`; with another dataset, splits, metric or models, the ten "
        "best configurations become the first search trials"
    )
    group.add_argument(
        "--warm-start", metavar="STUDY", nargs="+", action="extend", type=non_empty, default=[], help=warm_start
    )


def search_request(
    options: argparse.Namespace,
    overrides: Overrides | None = None,
    *,
    problems: ProblemCollector,
    at_least: int = 0,
    more: int = 0,
) -> SearchRequest:
    """Return the search that the options request; `SearchRequest` documents `at_least` and `more`.

    Problems of the studies of ``--warm-start`` are added to `problems`.
    """
    from search_spaces.experiments.schema import settings_by_field
    from search_spaces.training_config import STUDY_FIELDS
    from studies import PrunerName, SamplerName, SearchRequest
    from tuner.session.study_files import load_earlier_studies

    earlier: tuple[EarlierStudy, ...] = ()
    with problems.collect():
        earlier = load_earlier_studies(options.warm_start, options.output_dir, options.storage)
    return SearchRequest(
        sampler=None if options.sampler is None else SamplerName(options.sampler),
        pruner=None if options.pruner is None else PrunerName(options.pruner),
        prune_share=options.prune_share,
        prune_grace=options.prune_grace,
        parallelism=options.parallelism,
        fixed={name: value for name, value in settings_by_field(overrides or {}).items() if name not in STUDY_FIELDS},
        warm_start=earlier,
        at_least=at_least,
        more=more,
    )
