"""Train the experiments of a YAML file, then search trials.

Examples:
  khmer-tuner run
  khmer-tuner run --trials 2 --workers 2
  khmer-tuner run --experiments conservative_small baseline_optimized
  khmer-tuner run --config config/phase3_simple_configs.yaml --output-dir second_output
  khmer-tuner run --dry-run

Run the same command again after an interruption: it resumes interrupted trials
and does not train finished trials again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS, collector
from tuner.cli.existing_study import LoadedStudy, exit_code, load
from tuner.cli.options import (
    MOST_TRIALS,
    Command,
    add_experiments_options,
    add_flag,
    add_option,
    add_search_options,
    add_set_option,
    add_study_options,
    add_training_options,
    overrides_of,
    search_request,
    whole_number,
)
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    from search_spaces import ExperimentFile, TrainingConfig
    from search_spaces.experiments.overrides import Overrides
    from tuner.session.run_request import RunRequest

_FINISHED = ("completed", "failed")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_experiments_options(parser, config="config/phase3_simple_configs.yaml")
    trials = "total number of search trials in the study, not counting the experiments"
    add_option(parser, "--trials", "N", whole_number(0, MOST_TRIALS), trials, default=0)
    add_set_option(parser, "override a setting of the experiments and search trials")
    add_training_options(parser)
    add_flag(parser, "--dry-run", "check all input and print the plan; create and train nothing")
    add_search_options(parser)
    add_study_options(parser, json=True, study_default="khmer-ocr")


def prepare(options: argparse.Namespace) -> tuple[ExperimentFile, RunRequest]:
    """Load and check the configuration, the search space, the dataset, the study and the results file."""
    from search_spaces import load_overridden
    from tuner.session.run_options import RunOptions
    from tuner.session.run_request import RunRequest

    problems = collector(options)
    overrides: Overrides = {}
    with problems.collect():
        overrides = overrides_of(options)
    fixed = overrides if options.trials else None
    run_options = RunOptions(
        output_dir=options.output_dir,
        study_name=options.study,
        storage=options.storage,
        device=options.device,
        seed=options.seed,
        results_file=options.results_file,
        space_file=options.space,
        search=search_request(options, fixed, problems=problems, at_least=options.trials),
        until_targets=options.until_targets,
        workers=options.workers,
        threads=options.threads,
    )
    with problems.collect():
        file = load_overridden(options.config, options.experiments, overrides)
        request = RunRequest.from_file(file, options.experiments, run_options)
        request.check_dataset()
    with problems.collect():
        run_options.check()
    problems.raise_all()
    return file, request


def run(options: argparse.Namespace, prepared: tuple[ExperimentFile, RunRequest]) -> int:
    """Train the trials, or print the plan of a dry run."""
    from tuner.cli.display_factory import open_display
    from tuner.session.run_options import StopConditions
    from tuner.session.session import Session
    from tuner.workers.run_study import run_request

    file, request = prepared
    if options.dry_run:
        return _show_plan(options, file, request)
    with open_display(with_summary=not options.json, debug=options.debug) as display:
        for note in (f"configuration: {file.path}", *request.messages):
            display.note(note)
        session = Session.open(request, display)
        results = run_request(session, request)
    if options.json:
        print_json(results)
    return exit_code(session, request.trial_filter, StopConditions())


def _show_plan(options: argparse.Namespace, file: ExperimentFile, request: RunRequest) -> int:
    from search_spaces import resolve_config_path
    from search_spaces.diagnostics.wording import counted
    from tuner.cli.plan import characters_line, input_lines, print_plan
    from tuner.data.metadata import read_metadata
    from tuner.display.terminal import shown_path

    first, characters = request.first, []
    if Path(first.metadata_path).exists():
        vocabulary = read_metadata(first.metadata_path, [first.train_split, first.val_split]).vocabulary
        request, characters = request.with_sizes(vocabulary.sizes), [characters_line(vocabulary)]
    study = _study_if_any(options)
    states, search = _states(request.experiments, study), _planned_search(request, study)
    to_train = sum(state not in _FINISHED for state in states.values()) + (search["to_train"] if search else 0)
    if options.json:
        plan: dict[str, Any] = {
            "configuration": str(file.path),
            "experiments": {name: asdict(config) for name, config in request.experiments.items()},
            "states": states,
            "targets": file.targets.model_dump(),
            "models": str(resolve_config_path(first.model_config_path)),
            "search": search,
            "workers": options.workers,
            "trials_to_train": to_train,
            "set": options.set,
            "messages": request.messages,
        }
        print_json(plan)
        return SUCCESS
    print_plan(file, request.experiments, states)
    lines = [
        *(f"set:     {text}" for text in options.set),
        *input_lines(first),
        *characters,
        *request.messages[len(file.messages) :],
    ]
    if search:
        text = "search:  {trials} search trials in total, sampler {sampler}, pruner {pruner}, parallelism {parallelism}"
        lines.append(text.format(**search))
        lines += [f"space:   {', '.join(search['varied'])}", *(f"note: {note}" for note in search["notes"])]
        lines += [
            f"prior:   {counted(trials, 'finished trial')} of {name}" for name, trials in search["warm_start"].items()
        ]
    lines.append(f"train:   {counted(to_train, 'trial')} (number of workers: {options.workers})")
    print_lines([*lines, f"output:  {shown_path(options.output_dir)}", "dry run: nothing was created"])
    return SUCCESS


def _study_if_any(options: argparse.Namespace) -> LoadedStudy | None:
    from search_spaces import ConfigurationError

    try:
        return load(options)
    except ConfigurationError:  # `RunOptions.check` accepted the folder, so it contains no study yet
        return None


def _planned_search(request: RunRequest, study: LoadedStudy | None) -> dict[str, Any] | None:
    """Return the planned search and the number of its trials to train; None if no search trials are requested."""
    from studies import study_status
    from tuner.session.run_options import default_parallelism

    search, known = request.options.search, None if study is None else study_status(*study).search
    if not search.at_least:
        return None
    parallelism = search.parallelism or default_parallelism(request.options.workers)
    space = request.search_space(None if study is None else study[0])
    trials = max(search.at_least, known.budget if known else 0)
    return {
        "trials": trials,
        "to_train": trials - (known.ended if known else 0),
        "sampler": known.sampler if known else search.chosen_sampler,
        "pruner": known.pruner if known else search.chosen_pruner,
        "parallelism": known.parallelism if known else parallelism,
        "varied": space.names,
        "notes": space.preset_notes(request.experiments),
        "warm_start": {study.name: len(study.observations) for study in search.warm_start},
    }


def _states(experiments: Mapping[str, TrainingConfig], study: LoadedStudy | None) -> dict[str, str]:
    from search_spaces import config_digest
    from studies import latest_records, study_status

    if study is None:
        return dict.fromkeys(experiments, "new")
    states = {row.name: row.state.value for row in study_status(*study).rows}
    digests = {record.experiment_name: record.config_digest for record in latest_records(study[0])}
    return {
        name: "CHANGED"
        if digests.get(name, config_digest(config)) != config_digest(config)
        else states.get(name, "new")
        for name, config in experiments.items()
    }


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
