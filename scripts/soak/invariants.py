"""What must hold of a complete study, however it was disturbed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT, RESULTS, FixtureStudy
from harness.processes import give, problem_of
from harness.snapshot import is_left_over

from soak.retraining import can_be_trained_again

_FRESH = "fresh.json"


@dataclass
class Examination:
    """What a study has left behind.

    Attributes:
        problems: Invariants that it breaks.
        trials: Trials that it has.
        epochs: Epochs that they have.
        not_repeatable: Names of those whose bits depend on how often their processes died.
    """

    problems: list[str] = field(default_factory=list)
    trials: int = 0
    epochs: int = 0
    not_repeatable: list[str] = field(default_factory=list)


def examine(small: FixtureStudy, folder: Path) -> Examination:
    """Examine a complete study; for a process of its own.

    Args:
        small: What is planned.
        folder: Its folder.
    """
    from search_spaces import ConfigurationError
    from studies import damage_notes, load_study, own_records

    study, output = load_study(folder / OUTPUT)
    trials = study.get_trials(deepcopy=False)
    found = Examination(trials=len(trials))
    try:
        found.problems += damage_notes(study)
    except ConfigurationError as error:  # a row is missing, so positions are not trial numbers
        found.problems.append(str(error))
        return found
    records = own_records(study)
    found.problems += _plan_problems(small, trials, records)
    for trial, record in zip(trials, records, strict=False):
        lines = _metrics(output.trial_dir(record.experiment_name))
        found.epochs += len(lines)
        found.problems += _end_problems(record)
        found.problems += _epoch_problems(trial, record, lines, study.direction.name)
    found.not_repeatable = [record.experiment_name for record in records if not can_be_trained_again(record)]
    found.problems += _file_problems(folder)
    found.problems += _results_file_problems(study, folder)
    return found


def results_problems(folder: Path) -> Iterator[str]:
    """Yield in what the results file of the last command is not what an export gives now."""
    done = give(folder, "export", "--results-file", _FRESH, "--output-dir", OUTPUT)
    if problem := problem_of(done):
        yield f"export: {problem}"
    elif _results(folder / _FRESH) != _results(folder / RESULTS):
        yield f"{RESULTS} is not as a fresh export"


def _plan_problems(small: FixtureStudy, trials: Sequence[Any], records: Sequence[Any]) -> Iterator[str]:
    """Yield in what the trials are not those that were planned, each once."""
    from search_spaces.diagnostics.names import search_trial_name

    if [trial.number for trial in trials] != list(range(small.trials)):
        yield f"{small.trials} trials were planned, these are there: {[trial.number for trial in trials]}"
    planned = [*small.preset_names, *map(search_trial_name, range(len(small.preset_names), small.trials))]
    names = [record.experiment_name for record in records]
    if names != planned:
        yield f"these experiments were planned: {planned}; these are there: {names}"
    open_ones = [f"{trial.number} {trial.state.name}" for trial in trials if not trial.state.is_finished()]
    if open_ones:
        yield f"trials that have not ended: {', '.join(open_ones)}"


def _end_problems(record: Any) -> Iterator[str]:
    """Yield what is wrong with why a trial ended."""
    from studies import MAX_CRASHES, MAX_MEMORY_CRASHES, WhyEnded

    name, outcome = record.experiment_name, record.outcome
    many = record.consecutive_crashes >= MAX_CRASHES or record.consecutive_memory_crashes >= MAX_MEMORY_CRASHES
    if outcome is None:
        yield f"{name} has no outcome"
    elif outcome.why_ended is WhyEnded.CRASHED and not many:
        yield f"{name} failed after {record.consecutive_crashes} deaths in a row: {record.attempts}"
    elif outcome.why_ended in (WhyEnded.FAILED, WhyEnded.OUT_OF_MEMORY):
        yield f"{name} failed: {outcome.error_type} {outcome.error_message}"


def _epoch_problems(trial: Any, record: Any, lines: Sequence[Any], direction: str) -> Iterator[str]:
    """Yield in what a trial's epochs, its reports and its outcome do not agree."""
    name, outcome, config = record.experiment_name, record.outcome, record.training_config
    epochs = [line.get("epoch") if isinstance(line, dict) else line for line in lines]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"{name} has these epochs in its metrics: {epochs}"
        return
    if outcome is not None and outcome.total_epochs != len(epochs):
        yield f"{name} has {len(epochs)} epochs in its metrics, {outcome.total_epochs} in the study"
    values = [line[config.early_stopping_monitor] for line in lines]
    better = min if direction == "MINIMIZE" else max
    best = {epoch: better(values[:epoch]) for epoch in epochs}
    if trial.intermediate_values != best:
        yield f"{name} reported {trial.intermediate_values}, its best so far were {best}"
    if trial.state.name == "COMPLETE" and [trial.value] != list(best.values())[-1:]:
        yield f"{name} has the value {trial.value}, its best was {list(best.values())[-1:]}"


def _metrics(folder: Path) -> list[Any]:
    """Return the lines of a trial's metrics; one that is incomplete as text."""
    path = folder / "metrics.jsonl"
    return [_parsed(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def _file_problems(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the database, and files that should have been removed."""
    with closing(sqlite3.connect(folder / OUTPUT / "study.db")) as database:
        found = [row[0] for row in database.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        yield f"the database is damaged: {'; '.join(found)}"
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    if left := [str(path) for path in paths if is_left_over(path)]:
        yield f"files left over: {', '.join(left)}"


def _results_file_problems(study: Any, folder: Path) -> Iterator[str]:
    """Yield in what the results file is not what the study says."""
    from studies import render_results

    if json.loads(json.dumps(render_results(study, timestamp="") | {"timestamp": None})) != _results(folder / RESULTS):
        yield f"{RESULTS} is not what the study says"


def _results(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) | {"timestamp": None}
