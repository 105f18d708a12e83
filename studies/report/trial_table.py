"""The table of all trials: their results and their settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from studies.report.formatting import duration_text, moment_text, reason_text, seconds_text, setting_text, share_text
from studies.report.snapshot import Snapshot
from studies.status.status import StatusRow
from studies.trials.record import TrialOutcome, TrialRecord
from studies.trials.targets import target_verdicts

# The metric behind each target that a figure of every epoch decides.
_ACCURACIES = {"character_accuracy": "val_char_accuracy", "sequence_accuracy": "val_seq_accuracy"}


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: What it says; "" if there is nothing to say.
        order: What it is sorted by, where that is not the text.
        met: Whether it meets its target; None if it has none.
    """

    text: str
    order: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes:
        number: Its number.
        state: How far it is.
        why_ended: The reason; "" while it has not.
        cells: Its cells, one for each column.
    """

    number: int
    state: str
    why_ended: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: Its heading.
        is_number: Whether it holds numbers.
        is_setting: Whether it holds a setting.
    """

    title: str
    is_number: bool = True
    is_setting: bool = False

    @cached_property
    def classes(self) -> str:
        """The style classes of its cells."""
        return " ".join(name for name, given in (("number", self.is_number), ("setting", self.is_setting)) if given)


@dataclass(frozen=True)
class TrialTable:
    """All trials.

    Attributes:
        columns: Its columns.
        rows: A row for each trial, by number.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Trial:
    row: StatusRow
    record: TrialRecord | None
    outcome: TrialOutcome | None
    verdicts: Mapping[str, bool]
    settings: Mapping[str, Any]


_Fill = Callable[[_Trial], Cell]


def trial_table(snapshot: Snapshot) -> TrialTable:
    """Return the table of all trials that are this program's."""
    trials = [_trial(snapshot, row) for row in snapshot.status.rows]
    names = sorted({name for trial in trials for name in trial.settings})
    settings = {Column(name, is_number=_numeric(trials, name), is_setting=True): _setting(name) for name in names}
    begun: dict[Column, _Fill] = {Column("begun", is_number=False): lambda trial: _moment(trial.row.started)}
    fills = {**_result_columns(snapshot.metric), **settings, **begun}
    rows = tuple(
        Row(
            trial.row.number,
            trial.row.state.value,
            trial.row.why_ended or "",
            tuple(fill(trial) for fill in fills.values()),
        )
        for trial in trials
    )
    return TrialTable(tuple(fills), rows)


def _trial(snapshot: Snapshot, row: StatusRow) -> _Trial:
    record = snapshot.records.get(row.number)
    if record is None:
        return _Trial(row, None, None, {}, {})
    settings = {**snapshot.trials[row.number].params, **record.outside_space}
    # A trial that ended between the two looks at the study is still shown as it was.
    outcome = record.outcome if row.why_ended is not None else None
    verdicts = {} if outcome is None else target_verdicts(outcome, snapshot.status.targets)
    return _Trial(row, record, outcome, verdicts, settings)


def _result_columns(metric: str) -> dict[Column, _Fill]:
    columns: dict[Column, _Fill] = {
        Column("trial"): lambda trial: Cell(str(trial.row.number)),
        Column("name", is_number=False): lambda trial: Cell(trial.row.name),
        Column("state", is_number=False): lambda trial: Cell(trial.row.state.value),
        Column("why ended", is_number=False): lambda trial: Cell(reason_text(trial.row.why_ended)),
    }
    if metric not in _ACCURACIES.values():
        columns[Column(metric)] = lambda trial: Cell(_figure(trial.row.best_value))
    return columns | {
        Column("char"): _accuracy("character_accuracy", lambda found: found.best_val_char_accuracy, metric),
        Column("seq"): _accuracy("sequence_accuracy", lambda found: found.best_val_seq_accuracy, metric),
        Column("epochs"): lambda trial: Cell(str(trial.row.epochs)),
        Column("best epoch"): _outcome(lambda found: _count(found.best_epoch)),
        Column("s/epoch"): _outcome(lambda found: _seconds(found.epoch_seconds_median), "training_time_per_epoch"),
        Column("converged"): _outcome(lambda found: _count(found.converged_epoch), "convergence_epochs"),
        Column("time"): lambda trial: _duration(trial.row.seconds),
    }


def _accuracy(target: str, value: Callable[[TrialOutcome], float], metric: str) -> _Fill:
    """Return what fills a column of accuracies; the monitored one is known while a trial runs."""

    def fill(trial: _Trial) -> Cell:
        if trial.outcome is not None:
            return Cell(_figure(value(trial.outcome)), met=trial.verdicts.get(target))
        return Cell(_figure(trial.row.best_value) if metric == _ACCURACIES[target] else "")

    return fill


def _outcome(text: Callable[[TrialOutcome], str], target: str = "") -> _Fill:
    def fill(trial: _Trial) -> Cell:
        return Cell("") if trial.outcome is None else Cell(text(trial.outcome), met=trial.verdicts.get(target))

    return fill


def _setting(name: str) -> _Fill:
    def fill(trial: _Trial) -> Cell:
        if name not in trial.settings:
            return Cell("")
        value = trial.settings[name]
        return Cell(setting_text(value), order=repr(value) if isinstance(value, float) else "")

    return fill


def _numeric(trials: list[_Trial], name: str) -> bool:
    values = [trial.settings[name] for trial in trials if name in trial.settings]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _figure(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else share_text(value)


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _seconds(value: float | None) -> str:
    return "" if value is None else seconds_text(value)


def _duration(seconds: float | None) -> Cell:
    return Cell("") if seconds is None else Cell(duration_text(seconds), order=f"{seconds:.1f}")


def _moment(moment: datetime | None) -> Cell:
    return Cell("") if moment is None else Cell(moment_text(moment))
