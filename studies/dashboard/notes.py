"""The Markdown notes of a study and its trials, which the dashboard shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

import optuna
from optuna.trial import Trial

from search_spaces.diagnostics.wording import short_text
from studies.storage.output_folder import OutputFolder
from studies.study.lifecycle import study_invariants, study_targets
from studies.study.search_budget import search_budget, search_settings
from studies.study.warm_start import study_prior
from studies.trials.record import TrialKind, TrialOutcome, TrialRecord
from studies.trials.results import target_verdicts

_Rows = list[tuple[str, str]]

_MAX_ERROR_CHARACTERS = 600
# The settings that a note shows; an artifact of the trial has all settings.
_SETTINGS = ("model_name", "batch_size", "learning_rate", "optimizer_type", "scheduler_type", "loss_type")


@dataclass(frozen=True)
class Progress:
    """The progress of a running trial.

    Attributes:
        epochs: Number of finished epochs.
        best_value: The best value of the monitored metric; None before the first epoch.
        best_epoch: The epoch with the best value, counted from 1; None before the first epoch.
        epoch_seconds: Median seconds per epoch; None before the first epoch.
    """

    epochs: int = 0
    best_value: float | None = None
    best_epoch: int | None = None
    epoch_seconds: float | None = None


def write_running_note(trial: Trial, record: TrialRecord, progress: Progress, folder: OutputFolder) -> None:
    """Write the progress of a running trial into the trial's note."""
    rows = [("epochs", f"{progress.epochs} of at most {record.training_config.num_epochs}")]
    rows += _best_rows(record, progress.best_value, progress.best_epoch)
    rows += _seconds_rows(progress.epoch_seconds)
    _save(trial, _body("running", rows, record, folder))


def write_ended_note(
    trial: Trial, record: TrialRecord, outcome: TrialOutcome, value: float | None, folder: OutputFolder
) -> None:
    """Write the outcome of a trial into the trial's note; must be called before the result is reported to the study.

    Args:
        trial: The trial.
        record: The trial's record, with its settings.
        outcome: The trial's outcome.
        value: The trial's best value of the monitored metric; None if the trial reported no value.
        folder: The study's output folder.
    """
    rows = _best_rows(record, value, outcome.best_epoch)
    rows.append(("best character accuracy", f"{outcome.best_val_char_accuracy:.4f}"))
    rows.append(("best sequence accuracy", f"{outcome.best_val_seq_accuracy:.4f}"))
    if outcome.unseen_text:
        rows.append(("on unseen designs", outcome.unseen_text))
    if outcome.size_and_speed_text:
        rows.append(("size and speed", outcome.size_and_speed_text))
    if outcome.final_train_loss is not None:
        rows.append(("final training loss", f"{outcome.final_train_loss:.4f}"))
    rows.append(("epochs", f"{outcome.total_epochs} of at most {record.training_config.num_epochs}"))
    rows += _seconds_rows(outcome.epoch_seconds_median)
    rows.append(("training time", f"{outcome.training_time_s:.0f} s"))
    if outcome.micro_batch_size is not None:
        rows.append(("micro-batch size", f"{outcome.micro_batch_size}, because whole batches ran out of memory"))
    verdicts = target_verdicts(outcome, study_targets(trial.study)) if outcome.succeeded else {}
    rows += [(f"target {name}", "met" if met else "not met") for name, met in verdicts.items()]
    error = f"{outcome.error_type}: {outcome.error_message}".removeprefix(": ") if outcome.error_message else ""
    _save(trial, _body(outcome.why_ended.text, rows, record, folder, error))


def write_study_note(study: optuna.Study, folder: OutputFolder) -> None:
    """Write the study's metric, dataset, search and targets into the study's note, unless it is up to date."""
    invariants, search, targets = study_invariants(study), search_settings(study), study_targets(study)
    rows = [
        ("metric", f"{invariants.monitor} ({invariants.mode})"),
        ("dataset", f"{_code(invariants.dataset['metadata_path'])}, {invariants.dataset['val_split']} split"),
        ("seed", str(invariants.seed)),
    ]
    if search is not None:
        rows.append(("search", f"{search_budget(study)} trials, {search.sampler.value}, {search.pruning.pruner.value}"))
        rows += [("prior", source.text) for source in study_prior(study).sources]
    rows += [(f"target {name}", f"{value:g}") for name, value in targets if value is not None]
    output_dir = shlex.quote(str(folder.path))
    commands = [f"khmer-tuner {command} --output-dir {output_dir}" for command in ("status", "resume", "report")]
    title = "Hyperparameter search for an OCR network."
    text = "\n".join([title, "", *_table(rows), "", *_block(commands)])
    from optuna_dashboard import get_note

    if get_note(study) != text:
        _save(study, text)


def _save(target: optuna.Study | Trial, text: str) -> None:
    from optuna_dashboard import save_note  # imported late, because it loads a web framework

    save_note(target, text)


def _body(state: str, rows: _Rows, record: TrialRecord, folder: OutputFolder, error: str = "") -> str:
    name = record.experiment_name.replace("_", r"\_")  # an underscore can start emphasis
    parts = [f"### {name}: {state}", "", *_table(rows), ""]
    if record.kind is TrialKind.PRESET or record.config:
        config = record.training_config
        parts += [", ".join(f"{name} {short_text(getattr(config, name))}" for name in _SETTINGS), ""]
    if error:
        parts += [*_block(error[:_MAX_ERROR_CHARACTERS].splitlines()), ""]
    trial_dir = folder.trial_dir(record.experiment_name)
    curves = f"tensorboard --logdir {shlex.quote(str(trial_dir / 'tensorboard'))}"
    parts += [
        f"- log: {_code(str(trial_dir / 'logs' / 'training.log'))}",
        f"- epochs: {_code(str(folder.metrics_path(record.experiment_name)))}",
        f"- TensorBoard: {_code(curves)}",
    ]
    return "\n".join(parts)


def _best_rows(record: TrialRecord, value: float | None, epoch: int | None) -> _Rows:
    if value is None:
        return []
    in_epoch = f" in epoch {epoch}" if epoch else ""
    return [(f"best {record.training_config.early_stopping_monitor}", f"**{value:.4f}**{in_epoch}")]


def _seconds_rows(seconds: float | None) -> _Rows:
    return [] if seconds is None else [("seconds per epoch", f"{seconds:.3g}")]


def _table(rows: _Rows) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]


def _block(lines: Iterable[str]) -> list[str]:
    """Format lines as a fenced Markdown code block, which none of the lines can close."""
    return ["```text", *(line.replace("```", "'''") for line in lines), "```"]


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"
