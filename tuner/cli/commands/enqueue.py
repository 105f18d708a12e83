"""``enqueue``: add work to a study that has begun, for whoever works on it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tuner.cli.errors import SUCCESS, gathered, tell
from tuner.cli.options import (
    LARGEST_SEED,
    MOST_TRIALS,
    Command,
    add_json_option,
    add_search_options,
    add_study_options,
    filled,
    search_request,
    whole_number,
)

if TYPE_CHECKING:
    import optuna

    from studies import PresetState, StudyStatus
    from tuner.session.enqueue import EnqueueRequest, EnqueueResult

_OF_EXPERIMENTS = ("experiments", "seed")
_OF_A_SEARCH = ("sampler", "pruner", "prune_share", "prune_grace")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``enqueue``."""
    parser.add_argument(
        "--trials",
        metavar="N",
        type=whole_number(1, MOST_TRIALS),
        help="search trials on top of those that the study has",
    )
    parser.add_argument(
        "--config", metavar="P", type=filled, help="experiments, looked up here, then in the installed package"
    )
    parser.add_argument("--experiments", metavar="A", nargs="+", help="only these of them (default: all)")
    parser.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0, LARGEST_SEED),
        help="seed of the experiments, as `run` had it (default: as the configuration says)",
    )
    parser.add_argument(
        "--space", metavar="P", type=filled, help="add nothing unless the study varies what this search space says"
    )
    add_json_option(parser)
    add_search_options(parser)
    add_study_options(parser)


def problems(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the options and the files, and what the study cannot take."""
    from studies import check_search, load_study

    def check_study() -> None:
        load_study(options.output_dir, storage_url=options.storage, name=options.study)

    found = _pointless(options) + gathered([check_study, lambda: check_search(search_request(options))], options)
    return found or gathered([lambda: _check_work(options)], options)


def run(options: argparse.Namespace) -> int:
    """Add the work; whoever works on the whole study takes it up."""
    from studies import find_study, load_study, study_status

    study, folder = load_study(options.output_dir, storage_url=options.storage, name=options.study)
    _, url = find_study(options.output_dir, storage_url=options.storage)
    work = _work(options, study)
    for remark in work.remarks:
        tell(remark)
    addition = work.add(study, folder, url)
    status = study_status(study, folder)
    if options.json:
        print(json.dumps(_as_dict(addition, options.trials or 0, status.pending), ensure_ascii=False, indent=2))
    else:
        for line in _lines(addition, options.trials or 0, status):
            print(line)
    return SUCCESS


def _pointless(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with which options are given."""
    found = []
    if options.trials is None and options.config is None:
        found.append("nothing to add; give --trials for search trials, or --config for experiments")
    for needed, names in (("config", _OF_EXPERIMENTS), ("trials", _OF_A_SEARCH)):
        given = [name for name in names if getattr(options, name) is not None]
        if given and getattr(options, needed) is None:
            shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            found.append(f"{shown}: of no effect without --{needed}; add that or leave it out")
    return found


def _work(options: argparse.Namespace, study: optuna.Study) -> EnqueueRequest:
    from search_spaces import load_experiments, load_search_space
    from studies import study_invariants
    from tuner.session.enqueue import EnqueueRequest
    from tuner.session.study_setup import load_space, with_overrides

    request = search_request(options, more=options.trials or 0)
    if options.config is None:
        definitions = study_invariants(study).definitions
        space = None if options.space is None else load_search_space(options.space, definitions)
        return EnqueueRequest(space=space, search=request)
    file = load_experiments(options.config)
    experiments = with_overrides(file.select(options.experiments), seed=options.seed, device=None)
    space = load_space(options.space, next(iter(experiments.values())))
    return EnqueueRequest(experiments, list(file.experiments), space, request, file.messages)


def _check_work(options: argparse.Namespace) -> None:
    from studies import load_study

    study, folder = load_study(options.output_dir, storage_url=options.storage, name=options.study)
    _work(options, study).check(study, folder)


def _lines(addition: EnqueueResult, trials: int, status: StudyStatus) -> list[str]:
    from search_spaces.diagnostics.plural import counted

    lines = [f"added: {name} (trial {state.trial_number})" for name, state in addition.added.items()]
    lines += [_known_line(name, state) for name, state in addition.known.items()]
    if trials:
        lines.append(f"added: {counted(trials, 'search trial')}, {addition.search_trials:,} in all")
    if status.pending:
        at_work = any(row.state.value == "running" for row in status.rows)
        who = (
            "; who works on the whole study takes them up"
            if at_work
            else ": `khmer-tuner resume`, or a worker that waits"
        )
        lines.append(f"{counted(status.pending, 'trial')} to begin{who}")
    return lines


def _known_line(name: str, state: PresetState) -> str:
    remedy = "; `khmer-tuner resume --retry-failed` trains it again" if state.state.value == "failed" else ""
    return f"{name} is there already: {state.state.value}{remedy}"


def _as_dict(addition: EnqueueResult, trials: int, pending: int) -> dict[str, Any]:
    def plain(states: dict[str, PresetState]) -> list[dict[str, Any]]:
        return [
            {"name": name, "number": state.trial_number, "state": state.state.value} for name, state in states.items()
        ]

    return {
        "added": plain(dict(addition.added)),
        "already_there": plain(dict(addition.known)),
        "search_trials_added": trials,
        "search_trials": addition.search_trials,
        "pending": pending,
    }


COMMAND = Command(
    name="enqueue",
    summary="add work to a study that has begun, also while others work on it",
    examples="""\
  khmer-tuner enqueue --trials 2
  khmer-tuner enqueue --config config/phase3_simple_configs.yaml --experiments conservative_small

Nothing is trained here. What a study has already stays as it is. A `run` takes up search trials if it has --trials.""",
    add_options=add_options,
    run=run,
    problems=problems,
)
