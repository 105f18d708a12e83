"""Check an experiments file and its dataset, or a search space.

Examples:
  khmer-tuner validate config/phase3_simple_configs.yaml
  khmer-tuner validate config/search_space.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS
from tuner.cli.options import Command, add_option, non_empty
from tuner.cli.output import print_lines

if TYPE_CHECKING:
    from search_spaces import ExperimentFile, Parameter, SearchSpace, YamlDocument


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="FILE", help="YAML file with experiments or a search space")
    models = "for a search space: file with the model definitions (default: config/model_config.yaml)"
    add_option(parser, "--model-config", "FILE", non_empty, models)


def prepare(options: argparse.Namespace) -> ExperimentFile | tuple[SearchSpace, list[str]]:
    """Read and check an experiments file or a search space.

    Returns:
        The experiments file; or the search space, with lines that name its file and its models.
    """
    from search_spaces import TrainingConfig, load_model_definitions, load_yaml, parse_search_space, resolve_config_path
    from tuner.cli.plan import models_line

    document = load_yaml(resolve_config_path(options.config))
    if not _is_space(document, options.model_config):
        return _parse_experiments(document, options.model_config)
    models = options.model_config or TrainingConfig.model_config_path
    space = parse_search_space(document.data, document, load_model_definitions(models))
    return space, [f"search space: {document.path}", models_line(models)]


def run(options: argparse.Namespace, prepared: ExperimentFile | tuple[SearchSpace, list[str]]) -> int:
    """Print the content of the file; for an experiments file, also read all images of an existing dataset."""
    if isinstance(prepared, tuple):
        _print_space(*prepared)
    else:
        _print_experiments(prepared)
    return SUCCESS


def _is_space(document: YamlDocument, model_config: str | None) -> bool:
    """Return whether a file is, or was probably meant to be, a search space; only search spaces use `model_config`."""
    from search_spaces.diagnostics.diagnostics import nearest

    keys = [key for key in document.data if isinstance(key, str)]
    meant = [nearest(key, ("experiments", "space")) for key in keys]
    return "experiments" not in keys and ("space" in meant or ("experiments" not in meant and model_config is not None))


def _parse_experiments(document: YamlDocument, model_config: str | None) -> ExperimentFile:
    from search_spaces import ConfigurationError, parse_experiments
    from tuner.session.run_request import RunRequest

    if model_config is not None:
        raise ConfigurationError(
            "--model-config: found with an experiments file, which names its model definitions in "
            "'model.config_path'; leave out --model-config"
        )
    file = parse_experiments(document.data, document)
    RunRequest.from_file(file).check_dataset()
    return file


def _print_experiments(file: ExperimentFile) -> None:
    from tuner.cli.plan import characters_line, input_lines, print_plan
    from tuner.data.metadata import UNSEEN_SPLIT
    from tuner.data.pixel_cache import open_pixel_cache
    from tuner.session.run_request import RunRequest

    print_plan(file, file.experiments)
    config = next(iter(file.experiments.values()))
    print_lines(input_lines(config))
    if Path(config.metadata_path).exists():
        cache = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split], verify=True)
        RunRequest.from_file(file).with_sizes(cache.vocabulary.sizes)
        read = {**cache.splits, **({} if cache.unseen is None else {UNSEEN_SPLIT: cache.unseen})}
        splits = ", ".join(f"{name} {len(split):,}" for name, split in read.items())
        print_lines([f"all images read: {splits}", characters_line(cache.vocabulary)])
    print_lines(["the configuration is valid"])


def _print_space(space: SearchSpace, heads: list[str]) -> None:
    from search_spaces.diagnostics.wording import as_written
    from tuner.display.terminal import plain_table

    table = plain_table("setting", "values", "only if")
    for parameter in space:
        table.add_row(parameter.name, str(parameter.domain), _condition_text(parameter))
    base = ", ".join(f"{name} {as_written(value)}" for name, value in space.base.items())
    warnings = [f"warning: {warning}" for warning in space.warnings]
    print_lines([*heads, "", table, "", f"base: {base or 'none'}", *warnings, "the search space is valid"])


def _condition_text(parameter: Parameter) -> str:
    from search_spaces import Choices

    return "; ".join(f"{name}: {Choices(values)}" for name, values in parameter.when.items())


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
