"""The invariants of a complete study, which must hold after any faults."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT, RESULTS, FixtureStudy
from harness.processes import problem_of, run_tuner
from harness.snapshot import is_leftover

from soak.retraining import is_reproducible

_FRESH = "fresh.json"


@dataclass
class Examination:
    """Result of examining a study.

    Attributes:
        problems: A text for each broken invariant.
        trials: Number of trials.
        epochs: Number of epochs of all trials in total.
        not_reproducible: Names of the trials whose results depend on their number of crashes.
    """

    problems: list[str] = field(default_factory=list)
    trials: int = 0
    epochs: int = 0
    not_reproducible: list[str] = field(default_factory=list)


def examine(small: FixtureStudy, folder: Path) -> Examination:
    """Check the invariants of a complete study; call this in a forked child process.

    Args:
        small: Definition of the study.
        folder: Folder of the study.
    """
    from search_spaces import ConfigurationError
    from studies import damage_notes, load_study, own_records

    study, output = load_study(folder / OUTPUT)
    trials = study.get_trials(deepcopy=False)
    found = Examination(trials=len(trials))
    try:
        found.problems += damage_notes(study)
    except ConfigurationError as error:  # a row is missing, so positions in the list are not trial numbers
        found.problems.append(str(error))
        return found
    records = own_records(study)
    found.problems += _plan_problems(small, trials, records)
    for trial, record in zip(trials, records, strict=False):
        lines = _metrics(output.trial_dir(record.experiment_name))
        found.epochs += len(lines)
        found.problems += _end_problems(record)
        found.problems += _epoch_problems(trial, record, lines, study.direction.name)
    found.not_reproducible = [record.experiment_name for record in records if not is_reproducible(record)]
    found.problems += _file_problems(folder)
    found.problems += _results_file_problems(study, folder)
    return found


def results_problems(folder: Path) -> Iterator[str]:
    """Yield a problem if the results file of the last command differs from a new export."""
    done = run_tuner(folder, "export", "--results-file", _FRESH, "--output-dir", OUTPUT)
    if problem := problem_of(done):
        yield f"export: {problem}"
    elif _results(folder / _FRESH) != _results(folder / RESULTS):
        yield f"{RESULTS} differs from a new export"


def _plan_problems(small: FixtureStudy, trials: Sequence[Any], records: Sequence[Any]) -> Iterator[str]:
    """Yield a problem for each difference between the trials and the planned trials."""
    from search_spaces.diagnostics.names import search_trial_name

    if [trial.number for trial in trials] != list(range(small.trials)):
        yield f"wrong trial numbers: found {[trial.number for trial in trials]}, expected 0 to {small.trials - 1}"
    planned = [*small.preset_names, *map(search_trial_name, range(len(small.preset_names), small.trials))]
    names = [record.experiment_name for record in records]
    if names != planned:
        yield f"wrong experiment names: found {names}, expected {planned}"
    unfinished = [f"{trial.number} {trial.state.name}" for trial in trials if not trial.state.is_finished()]
    if unfinished:
        yield f"unfinished trials: {', '.join(unfinished)}"


def _end_problems(record: Any) -> Iterator[str]:
    """Yield a problem if a trial failed, has no outcome, or ended as crashed before a crash limit was reached."""
    from studies import MAX_CRASHES, MAX_MEMORY_CRASHES, WhyEnded

    name, outcome = record.experiment_name, record.outcome
    at_limit = record.consecutive_crashes >= MAX_CRASHES or record.consecutive_memory_crashes >= MAX_MEMORY_CRASHES
    if outcome is None:
        yield f"{name} has no outcome; expected one, because the study is complete"
    elif outcome.why_ended is WhyEnded.CRASHED and not at_limit:
        crashes, for_memory = record.consecutive_crashes, record.consecutive_memory_crashes
        found = f"{crashes} consecutive crashes, {for_memory} of them out-of-memory crashes"
        limits = f"{MAX_CRASHES}, or {MAX_MEMORY_CRASHES} out-of-memory crashes"
        yield f"{name} ended as crashed: found {found}; expected at least {limits}; attempts: {record.attempts}"
    elif outcome.why_ended in (WhyEnded.FAILED, WhyEnded.OUT_OF_MEMORY):
        yield f"{name} failed: {outcome.error_type} {outcome.error_message}"


def _epoch_problems(trial: Any, record: Any, lines: Sequence[Any], direction: str) -> Iterator[str]:
    """Yield a problem for each contradiction between a trial's metrics file, reported values and outcome."""
    name, outcome, config = record.experiment_name, record.outcome, record.training_config
    epochs = [line.get("epoch") if isinstance(line, dict) else line for line in lines]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"{name} has wrong epochs in its metrics: found {epochs}, expected 1 to {len(epochs)}"
        return
    if outcome is not None and outcome.total_epochs != len(epochs):
        yield f"{name} has {len(epochs)} epochs in its metrics but {outcome.total_epochs} in the study"
    values = [line[config.early_stopping_monitor] for line in lines]
    better = min if direction == "MINIMIZE" else max
    best = {epoch: better(values[:epoch]) for epoch in epochs}
    if trial.intermediate_values != best:
        yield f"{name} reported wrong values: found {trial.intermediate_values}, expected {best}"
    if trial.state.name == "COMPLETE" and [trial.value] != list(best.values())[-1:]:
        yield f"{name} has a wrong value: found {trial.value}, expected {list(best.values())[-1:]}"


def _metrics(folder: Path) -> list[Any]:
    """Parse the lines of a trial's metrics file; invalid lines remain texts. Empty if the file is missing."""
    path = folder / "metrics.jsonl"
    return [_parsed(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def _file_problems(folder: Path) -> Iterator[str]:
    """Yield a problem if the database is damaged, and one if files remain that should have been removed."""
    with closing(sqlite3.connect(folder / OUTPUT / "study.db")) as database:
        found = [row[0] for row in database.execute("PRAGMA integrity_check")]
    if found != ["ok"]:
        yield f"the database is damaged: {'; '.join(found)}"
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    if leftover := [str(path) for path in paths if is_leftover(path)]:
        yield f"leftover files: {', '.join(leftover)}"


def _results_file_problems(study: Any, folder: Path) -> Iterator[str]:
    """Yield a problem if the results file differs from the study."""
    from studies import render_results

    if json.loads(json.dumps(render_results(study, timestamp="") | {"timestamp": None})) != _results(folder / RESULTS):
        yield f"{RESULTS} differs from the study"


def _results(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) | {"timestamp": None}
