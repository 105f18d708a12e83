"""Add trials to a study, for its workers to train.

Examples:
  khmer-tuner enqueue --trials 2 --parallelism 4
  khmer-tuner enqueue --config config/phase3_simple_configs.yaml --experiments conservative_small

`enqueue` trains nothing and does not change existing trials. It can be used
while workers are training. `run` trains search trials only with --trials.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS, collector, print_message
from tuner.cli.existing_study import LoadedStudy, load
from tuner.cli.options import (
    MOST_TRIALS,
    Command,
    add_experiments_options,
    add_option,
    add_search_options,
    add_study_options,
    search_request,
    whole_number,
)
from tuner.cli.output import print_json, print_lines

if TYPE_CHECKING:
    import optuna

    from studies import OutputFolder, SearchRequest, StudyStatus, TrialRecord
    from tuner.session.enqueue import EnqueueResult
    from tuner.session.run_request import RunRequest

_EXPERIMENT_OPTIONS = ("experiments", "seed")
_SEARCH_OPTIONS = ("sampler", "pruner", "prune_share", "prune_grace", "parallelism", "warm_start")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_option(parser, "--trials", "N", whole_number(1, MOST_TRIALS), "number of search trials to add to the study")
    add_experiments_options(parser)
    add_search_options(parser)
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> tuple[RunRequest, LoadedStudy]:
    """Load the study and the files, and check that the trials can be added."""
    from studies import check_search
    from tuner.session.enqueue import check_enqueue

    problems = collector(options)
    problems.add(_options_without_effect(options))
    with problems.collect():
        study, folder = load(options)
    search = search_request(options, problems=problems, more=options.trials or 0)
    with problems.collect():
        check_search(search)
    problems.raise_all()
    request = _request(options, study, search)
    check_enqueue(request, study, folder)
    return request, (study, folder)


def run(options: argparse.Namespace, prepared: tuple[RunRequest, LoadedStudy]) -> int:
    """Enqueue the trials; print the added and the existing trials, and the number of pending trials."""
    from studies import find_study, search_settings, study_status
    from tuner.session.enqueue import enqueue

    request, (study, folder) = prepared
    for message in request.messages:
        print_message(message)
    if options.trials and options.parallelism is None and search_settings(study) is None:
        print_message(
            "note: the search starts with --parallelism 1, so its trials are trained one after another by any number "
            "of workers; for more, start a new study (another --output-dir) with --parallelism P"
        )
    _, url = find_study(options.output_dir, storage_url=options.storage)
    result = enqueue(request, study, folder, url, on_note=lambda note: print_message(f"note: {note}"))
    status = study_status(study, folder)
    if options.json:
        print_json(_as_dict(result, options.trials or 0, status.pending))
    else:
        print_lines(_lines(result, options.trials or 0, status, folder))
    return SUCCESS


def _options_without_effect(options: argparse.Namespace) -> list[str]:
    found = []
    if options.trials is None and options.config is None:
        found.append("found neither --trials nor --config; use --trials for search trials or --config for experiments")
    for needed, names in (("config", _EXPERIMENT_OPTIONS), ("trials", _SEARCH_OPTIONS)):
        given = [name for name in names if getattr(options, name) not in (None, [])]
        if given and getattr(options, needed) is None:
            shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            found.append(f"{shown}: no effect without --{needed}; add --{needed} or leave out {shown}")
    return found


def _request(options: argparse.Namespace, study: optuna.Study, search: SearchRequest) -> RunRequest:
    from search_spaces import load_experiments, load_search_space
    from studies import study_invariants
    from tuner.session.run_options import RunOptions
    from tuner.session.run_request import RunRequest

    run_options = RunOptions(options.output_dir, seed=options.seed, space_file=options.space, search=search)
    if options.config is not None:
        return RunRequest.from_file(load_experiments(options.config), options.experiments, run_options)
    if options.space is None:
        return RunRequest(run_options)
    return RunRequest(run_options, space=load_search_space(options.space, study_invariants(study).definitions))


def _lines(result: EnqueueResult, trials: int, status: StudyStatus, folder: OutputFolder) -> list[str]:
    from search_spaces.diagnostics.wording import counted
    from tuner.display.lines import study_command

    lines = [f"added: {name} (trial {record.number})" for name, record in result.added.items()]
    lines += [_existing_line(name, record, folder) for name, record in result.existing.items()]
    if trials:
        total = counted(result.search_trials, "search trial")
        lines.append(f"added: {counted(trials, 'search trial')}; the study now has {total}")
    if status.pending:
        is_running = any(row.state.value == "running" for row in status.rows)
        resume = f"run `{study_command('resume', folder.path)}` to train all pending trials"
        action = "the running workers train all pending trials" if is_running else resume
        lines.append(f"pending: {counted(status.pending, 'trial')}; {action}")
    return lines


def _existing_line(name: str, record: TrialRecord, folder: OutputFolder) -> str:
    from tuner.display.lines import study_command

    command = study_command("resume --retry-failed", folder.path)
    remedy = f"; run `{command}` to train it again" if record.phase.value == "failed" else ""
    return f"not added: {name} is already in the study ({record.phase.value}){remedy}"


def _as_dict(result: EnqueueResult, trials: int, pending: int) -> dict[str, Any]:
    added, existing = (
        [{"name": name, "number": record.number, "state": record.phase.value} for name, record in records.items()]
        for records in (result.added, result.existing)
    )
    return {
        "added": added,
        "already_there": existing,
        "search_trials_added": trials,
        "search_trials": result.search_trials,
        "pending": pending,
    }


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
