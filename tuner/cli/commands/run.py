"""``run``: train the experiments of a configuration file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import FAILED, SUCCESS, gathered
from tuner.cli.options import (
    LARGEST_SEED,
    MOST_TRIALS,
    Command,
    add_device_option,
    add_json_option,
    add_results_option,
    add_search_options,
    add_study_options,
    add_until_targets_option,
    add_workers_option,
    filled,
    search_request,
    whole_number,
)

if TYPE_CHECKING:
    from search_spaces import ExperimentFile, TrainingConfig

_DEFAULT_CONFIG = "config/phase3_simple_configs.yaml"
_DEFAULT_STUDY = "khmer-ocr"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``."""
    parser.add_argument(
        "--config",
        metavar="P",
        type=filled,
        default=_DEFAULT_CONFIG,
        help="the experiments, looked up here, then in the installed package (default: %(default)s)",
    )
    parser.add_argument("--experiments", metavar="A", nargs="+", help="only these of them (default: all)")
    parser.add_argument(
        "--trials",
        metavar="N",
        type=whole_number(0, MOST_TRIALS),
        default=0,
        help="search trials that the study is to have besides the experiments (default: %(default)s)",
    )
    parser.add_argument(
        "--space",
        metavar="P",
        type=filled,
        help="what the search may vary, fixed when the study begins (default: the study's, else the packaged "
        "config/search_space.yaml)",
    )
    add_until_targets_option(parser)
    add_results_option(parser)
    add_workers_option(parser)
    add_device_option(parser)
    parser.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0, LARGEST_SEED),
        help="seed of all experiments (default: as the configuration says)",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and show the plan; create nothing")
    add_json_option(parser)
    add_search_options(parser)
    add_study_options(parser, study_default=_DEFAULT_STUDY)


def problems(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the configuration, the dataset's place, the study's place and the results file."""
    from studies import check_search
    from tuner.session.location import StudyLocation
    from tuner.session.output_paths import check_results_path

    def check_place() -> None:
        device = options.device or "auto"
        StudyLocation(Path(options.output_dir), options.study, options.storage, device).check()

    checks = [
        lambda: _check_file(options),
        check_place,
        lambda: check_results_path(options.results_file),
        lambda: check_search(search_request(options)),
    ]
    return gathered(checks, options)


def run(options: argparse.Namespace) -> int:
    """Train, or show what would be trained."""
    from tuner.cli.display_factory import display_of_run
    from tuner.hyperparameter_tuner import HyperparameterTuner

    file, experiments = _load(options)
    if options.dry_run:
        return _show_plan(file, experiments, options)
    with display_of_run(with_summary=not options.json, debug=options.debug) as display:
        display.note(f"configuration: {file.path}")
        for remark in (*file.messages, *_space_warnings(options, experiments)):
            display.note(remark)
        tuner = HyperparameterTuner(
            options.config,
            output_dir=options.output_dir,
            study_name=options.study,
            storage=options.storage,
            device=options.device,
            seed=options.seed,
            results_file=options.results_file,
            space_file=options.space,
            search=search_request(options, at_least=options.trials),
            until_targets=options.until_targets,
            workers=options.workers,
            display=display,
        )
        results = tuner.run_experiments(options.experiments)
    if options.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    return _exit_code(results, experiments, stopped=tuner.stopped)


def _load(options: argparse.Namespace) -> tuple[ExperimentFile, dict[str, TrainingConfig]]:
    from search_spaces import load_experiments
    from tuner.session.study_setup import with_overrides

    file = load_experiments(options.config)
    return file, with_overrides(file.select(options.experiments), seed=options.seed, device=options.device)


def _check_file(options: argparse.Namespace) -> None:
    from tuner.data.metadata import read_metadata_bytes
    from tuner.session.study_setup import load_space

    file, experiments = _load(options)
    first = next(iter(experiments.values()))
    load_space(options.space, first)
    metadata_path = Path(first.metadata_path)
    if file.names_dataset or metadata_path.exists():
        read_metadata_bytes(metadata_path)


def _space_warnings(options: argparse.Namespace, experiments: Mapping[str, TrainingConfig]) -> list[str]:
    """Return what is senseless in the search space that the command names, a line each."""
    from tuner.session.study_setup import load_space

    space = load_space(options.space, next(iter(experiments.values())))
    return [] if space is None else [f"warning: {text}" for text in space.warnings]


def _exit_code(results: Mapping[str, Any], experiments: Mapping[str, TrainingConfig], *, stopped: bool) -> int:
    ends = [entry["status"] for entry in results["all_results"] if entry["experiment_name"] in experiments]
    return FAILED if "failed" in ends or not (ends or stopped) else SUCCESS


def _show_plan(file: ExperimentFile, experiments: Mapping[str, TrainingConfig], options: argparse.Namespace) -> int:
    from tuner.cli.plan import dataset_line, print_plan
    from tuner.data.metadata import read_metadata
    from tuner.display.terminal import shown_path

    first = next(iter(experiments.values()))
    if Path(first.metadata_path).exists():
        read_metadata(first.metadata_path, [first.train_split, first.val_split])
    print_plan(file, experiments, _states(experiments, options))
    print(dataset_line(file, first))
    if options.trials:
        print(_search_line(options, first))
    for warning in _space_warnings(options, experiments):
        print(warning)
    print(f"output:  {shown_path(options.output_dir)}")
    print("dry run: nothing was created")
    return SUCCESS


def _search_line(options: argparse.Namespace, first: TrainingConfig) -> str:
    """Say how many search trials there would be, and what they would vary."""
    from search_spaces import ConfigurationError, default_search_space, load_model_definitions
    from studies import load_study, study_space
    from tuner.session.study_setup import load_space

    space = load_space(options.space, first)
    if space is None:
        try:
            space = study_space(load_study(options.output_dir, storage_url=options.storage, name=options.study)[0])
        except ConfigurationError:  # there is no study yet
            space = default_search_space(load_model_definitions(first.model_config_path))
    return f"search:  {options.trials} trials in the study, which vary {', '.join(space.names)}"


def _states(experiments: Mapping[str, TrainingConfig], options: argparse.Namespace) -> dict[str, str]:
    """Return where the experiments stand in the study, if there is one."""
    from search_spaces import ConfigurationError, config_digest
    from studies import latest_records, load_study, study_status

    try:
        study, folder = load_study(options.output_dir, storage_url=options.storage, name=options.study)
    except ConfigurationError:  # the place itself is sound: there is no study in it yet
        return dict.fromkeys(experiments, "new")
    states = {row.name: row.state.value for row in study_status(study, folder).rows}
    digests = {record.experiment_name: record.config_digest for record in latest_records(study)}
    return {
        name: "CHANGED"
        if digests.get(name, config_digest(config)) != config_digest(config)
        else states.get(name, "new")
        for name, config in experiments.items()
    }


COMMAND = Command(
    name="run",
    summary="train the experiments of a configuration file, each exactly once in a study, then search on",
    examples="""\
  khmer-tuner run
  khmer-tuner run --trials 2 --workers 2
  khmer-tuner run --experiments conservative_small baseline_optimized
  khmer-tuner run --config config/phase3_simple_configs.yaml --output-dir second_output
  khmer-tuner run --dry-run

Repeating a command goes on where it stopped; what is finished is not trained again.""",
    add_options=add_options,
    run=run,
    problems=problems,
)
