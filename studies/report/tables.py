"""The report's tables of targets, trials, failures and confirmed results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.diagnostics.wording import listed, short_text
from search_spaces.files.regular_files import parse_json, read_bytes
from studies.report.panels import NOTHING, duration_text, value_text
from studies.report.snapshot import Snapshot
from studies.status.status import StatusRow
from studies.trials.record import TrialOutcome, TrialPhase, TrialRecord, without_superseded
from studies.trials.results import HIGHER_IS_BETTER, metric_text, target_metrics, target_verdicts

_NAMES_SHOWN = 4


def target_rows(snapshot: Snapshot) -> Iterator[tuple[str, int, int, str, str]]:
    """Yield one row per target that is set; failed trials count as finished, but meet no target.

    Yields:
        The target as a condition, for example ``char >= 0.9``; the numbers of finished trials that met it and of all
        finished trials; the best value with the name of its trial, or a dash; names of the trials that met it.
    """
    latest = without_superseded(list(snapshot.records.values()))
    ended = {record.experiment_name: record.outcome for record in latest if record.outcome is not None}
    succeeded = {name: outcome for name, outcome in ended.items() if outcome.succeeded}
    targets = snapshot.status.targets
    verdicts = {name: target_verdicts(outcome, targets) for name, outcome in succeeded.items()}
    for target, goal in targets.goals().items():
        met = [name for name, found in verdicts.items() if found[target]]
        yield goal, len(met), len(ended), _best(succeeded, target), listed(met, _NAMES_SHOWN)


def _best(outcomes: Mapping[str, TrialOutcome], target: str) -> str:
    values = {name: target_metrics(outcome)[target] for name, outcome in outcomes.items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return NOTHING
    # With equal values, max and min return the first trial, which has the lower number.
    best = (max if target in HIGHER_IS_BETTER else min)(known, key=lambda name: known[name])
    return f"{metric_text(target, known[best])}, {best}"


MAX_FAILURES = 50
_MAX_ERROR_CHARACTERS = 500
# The metrics that are measured after every epoch, keyed by the name of their target.
_ACCURACIES = {"character_accuracy": "val_char_accuracy", "sequence_accuracy": "val_seq_accuracy"}


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Attributes:
        text: The displayed text; "" if the value is unknown or does not apply.
        order: The sort key of the cell; "" if rows are sorted by the text.
        met: Whether the value meets its target; None if there is no target.
    """

    text: str
    order: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class _Trial:
    row: StatusRow
    outcome: TrialOutcome | None
    verdicts: Mapping[str, bool]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: The heading.
        cell: Returns the cell of a trial in this column.
        classes: The CSS classes of the cells, separated by spaces.
    """

    title: str
    cell: Callable[[_Trial], Cell]
    classes: str = "number"


def trial_table(snapshot: Snapshot) -> tuple[Sequence[Column], Iterator[tuple[str, Sequence[Cell]]]]:
    """Return the columns of the table of all trials that this program created, and its rows in order of trial number.

    Each row has the state and the cells of a trial.
    """
    trials = [_trial(snapshot, row) for row in snapshot.status.rows]
    columns = (*_result_columns(snapshot.metric), *_setting_columns(trials), _STARTED)
    return columns, ((trial.row.state.value, [column.cell(trial) for column in columns]) for trial in trials)


def failure_rows(snapshot: Snapshot) -> list[tuple[int, str, str, int, str]]:
    """Return the failed trials, the highest number first.

    Returns:
        Number, name, why the trial ended, number of finished epochs, and error ("" if unknown) of each trial.
    """
    failed = [record for record in snapshot.records.values() if record.phase is TrialPhase.FAILED]
    return [_failure_row(record) for record in reversed(failed)]


def _failure_row(record: TrialRecord) -> tuple[int, str, str, int, str]:
    outcome = record.outcome
    if outcome is None:
        return record.number, record.experiment_name, "ended externally", 0, ""
    error = ": ".join(filter(None, (outcome.error_type, outcome.error_message)))
    if len(error) > _MAX_ERROR_CHARACTERS:
        error = f"{error[:_MAX_ERROR_CHARACTERS]} …"
    return record.number, record.experiment_name, outcome.why_ended.text, outcome.total_epochs, error


def _trial(snapshot: Snapshot, row: StatusRow) -> _Trial:
    record = snapshot.records.get(row.number)
    if record is None:
        return _Trial(row, None, {}, {})
    settings = snapshot.settings_of(record)
    # The record was read after the status: a trial may have finished in between, and is then shown as unfinished.
    outcome = record.outcome if row.why_ended is not None else None
    verdicts = {} if outcome is None else target_verdicts(outcome, snapshot.status.targets)
    return _Trial(row, outcome, verdicts, settings)


def _result_columns(metric: str) -> Iterator[Column]:
    yield Column("trial", lambda trial: Cell(str(trial.row.number)))
    yield Column("name", lambda trial: Cell(trial.row.name), classes="")
    yield Column("state", lambda trial: Cell(trial.row.state.value), classes="")
    yield Column("why ended", lambda trial: Cell(trial.row.reason), classes="")
    if metric not in _ACCURACIES.values():
        yield Column(metric, _best_value)
    yield Column("char", _target("character_accuracy", metric))
    yield Column("seq", _target("sequence_accuracy", metric))
    yield Column("parameters", lambda trial: Cell(str(trial.row.parameters or "")))
    yield Column("ms/image", lambda trial: Cell("" if trial.row.latency_ms is None else f"{trial.row.latency_ms:.2f}"))
    yield Column("epochs", lambda trial: Cell(str(trial.row.epochs)))
    yield Column("best epoch", lambda trial: Cell(str((trial.outcome and trial.outcome.best_epoch) or "")))
    yield Column("s/epoch", _target("training_time_per_epoch", metric))
    yield Column("converged", _target("convergence_epochs", metric))
    yield Column("time", _duration)


def _target(name: str, metric: str) -> Callable[[_Trial], Cell]:
    """Return a function that formats the metric of a target as a cell.

    An unfinished trial has a value only if the metric is the monitored one.
    """

    def cell(trial: _Trial) -> Cell:
        if trial.outcome is None:
            return _best_value(trial) if metric == _ACCURACIES.get(name) else Cell("")
        value = target_metrics(trial.outcome)[name]
        return Cell("" if value is None else metric_text(name, value), met=trial.verdicts.get(name))

    return cell


def _best_value(trial: _Trial) -> Cell:
    return Cell(value_text(trial.row.best_value).replace(NOTHING, ""))


def _duration(trial: _Trial) -> Cell:
    seconds = trial.row.seconds
    return Cell("") if seconds is None else Cell(duration_text(seconds), order=f"{seconds:.1f}")


_STARTED = Column(
    "started",
    lambda trial: Cell(f"{trial.row.started:%Y-%m-%d %H:%M:%S}" if trial.row.started else ""),
    classes="",
)


def _setting_columns(trials: list[_Trial]) -> Iterator[Column]:
    for name in sorted({name for trial in trials for name in trial.settings}):
        values = [trial.settings[name] for trial in trials if name in trial.settings]
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        yield Column(name, _setting(name), classes="number setting" if is_number else "setting")


def _setting(name: str) -> Callable[[_Trial], Cell]:
    def cell(trial: _Trial) -> Cell:
        if name not in trial.settings:
            return Cell("")
        value = trial.settings[name]
        return Cell(short_text(value), order=repr(value) if isinstance(value, float) else "")

    return cell


def find_confirmation(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return the results of `confirm`, with the formatted ``cells`` of each configuration for the table.

    Returns None if the file is missing or damaged, or if the study no longer has the results that were confirmed.
    """
    outcomes = {record.experiment_name: record.outcome for record in snapshot.records.values() if record.outcome}
    try:
        found: dict[str, Any] = parse_json(read_bytes(snapshot.folder.confirmation_path))
        for item in found["configurations"]:
            if item["first_val_char_accuracy"] != outcomes[item["name"]].best_val_char_accuracy:
                return None
            item["cells"] = [value_text(item["first_val_char_accuracy"])]
            for metric in ("val_char_accuracy", "test_char_accuracy", "test_seq_accuracy"):
                deviation = item["standard_deviation"][metric]
                spread = "" if deviation is None else f" ± {deviation:.4f}"
                item["cells"].append(f"{value_text(item['mean'][metric])}{spread}")
    except (OSError, ValueError, LookupError, TypeError):  # confirm has not finished, or the file is damaged
        return None
    return found if {"seeds", "comparisons"} <= found.keys() else None
