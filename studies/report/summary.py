"""The summary, the winner and the environment of a study as named facts, and the rows of its search space."""

from __future__ import annotations

import base64
import importlib.metadata
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import plotly.graph_objects as go

from search_spaces.diagnostics.wording import as_written, counted, listed, short_text
from search_spaces.files.regular_files import read_bytes
from search_spaces.space.space import Parameter
from search_spaces.training_config import WITHOUT_EFFECT, TrainingConfig
from studies.dashboard.artifacts import trial_artifacts
from studies.report.panels import BLUE, GREY, NOTHING, ORANGE, duration_text, styled, value_text
from studies.report.snapshot import Epochs, Snapshot
from studies.sampling.pruning import PrunerName
from studies.status.status import RowState
from studies.study.presets import fixed_space
from studies.study.search_budget import SearchSettings, search_settings
from studies.trials.record import Attempt, StartedAfter, TrialOutcome, TrialRecord

_NAMES_SHOWN = 3
_MACHINES_SHOWN = 8


@dataclass(frozen=True)
class Fact:
    """A named value in the report.

    Attributes:
        name: The name.
        value: The value.
        note: A note in smaller letters; "" for none.
    """

    name: str
    value: str
    note: str = ""


def state_text(snapshot: Snapshot) -> str:
    """Return the state of the study: running, interrupted, not started, finished or empty."""
    counts = snapshot.status.counts
    if counts[RowState.RUNNING]:
        return "running"
    if snapshot.status.pending:
        return "interrupted" if snapshot.status.ended or counts[RowState.INTERRUPTED] else "not started"
    return "finished" if snapshot.status.rows else "empty"


def summary(snapshot: Snapshot) -> Iterator[Fact]:
    """Yield the best trial, the state, the search progress, the targets and the training time."""
    yield _best(snapshot)
    yield _state(snapshot)
    if (search := snapshot.status.search) is not None:
        yield Fact(
            "Search", f"{search.ended:,} of {search.budget:,} trials", f"{search.sampler}, pruner {search.pruner}"
        )
        for source in search.prior:
            note = (
                "to try first"
                if source.differences
                else "trials of an earlier study, not counted as trials of this one"
            )
            yield Fact("Prior", source.text, note)
    if any(limit is not None for _, limit in snapshot.status.targets):
        met = list(snapshot.status.met_by)
        value = f"met by {counted(len(met), 'trial')}" if met else snapshot.status.met_text(0)
        yield Fact("Targets", value, listed(met, _NAMES_SHOWN))
    yield _time(snapshot)


def _best(snapshot: Snapshot) -> Fact:
    winner = snapshot.winner
    if winner is None or winner.outcome is None:
        return Fact("Best", NOTHING, "no trial has completed yet")
    outcome = winner.outcome
    char, seq = value_text(outcome.best_val_char_accuracy), value_text(outcome.best_val_seq_accuracy)
    unseen = f"; on unseen designs: {outcome.unseen_text}" if outcome.unseen_text else ""
    return Fact("Best", winner.experiment_name, f"characters {char}, sequences {seq}, on validation data{unseen}")


def _state(snapshot: Snapshot) -> Fact:
    counts = [f"{count:,} {state}" for state, count in snapshot.status.counts.items() if count]
    foreign = len(snapshot.trials) - len(snapshot.records)
    if foreign:
        counts.append(f"{foreign:,} not shown (created by hand)")
    return Fact("State", state_text(snapshot), ", ".join(counts) or "no trials yet")


def _time(snapshot: Snapshot) -> Fact:
    trained = sum(row.seconds or 0.0 for row in snapshot.status.rows)
    epochs = sum(row.epochs for row in snapshot.status.rows)
    own = [trial for trial in snapshot.trials if trial.number in snapshot.records]
    start = min((trial.datetime_start for trial in own if trial.datetime_start), default=None)
    end = max((trial.datetime_complete for trial in own if trial.datetime_complete), default=None)
    if start is None:
        return Fact("Training", NOTHING, "no trial has started yet")
    until = f" to {end:%b %d, %H:%M}" if end else ""
    return Fact("Training", duration_text(trained), f"{counted(epochs, 'epoch')}; {start:%b %d, %H:%M}{until}")


def environment(snapshot: Snapshot) -> Iterator[Fact]:
    """Yield the metric, the seed, the dataset, the search settings, the versions, the workers and the locations."""
    invariants, dataset = snapshot.invariants, snapshot.invariants.dataset
    yield Fact("Metric", f"{invariants.monitor} ({invariants.mode})", "for checkpoints, early stopping and pruning")
    yield Fact("Seed", str(invariants.seed))
    yield Fact("Dataset", str(dataset.get("metadata_path", NOTHING)))
    splits = [str(dataset.get(name, NOTHING)) for name in ("train_split", "val_split")]
    yield Fact("Splits", f"trained on {splits[0]}, validated on {splits[1]}")
    yield Fact("Dataset fingerprint", str(dataset.get("fingerprint", NOTHING)), "SHA-256 of its content")
    yield from _search_facts(search_settings(snapshot.study))
    for library, version in invariants.versions.items():
        yield Fact(library, version)
    yield from _worker_facts([attempt for record in snapshot.records.values() for attempt in record.attempts])
    if (owner := snapshot.folder.owner()) is not None:
        yield Fact("Storage", snapshot.folder.storage_url(owner))
    yield Fact("Output folder", str(snapshot.folder.path))
    yield Fact("Generated by", f"khmer-ocr-tuner {importlib.metadata.version('khmer-ocr-tuner')}")


def _search_facts(settings: SearchSettings | None) -> Iterator[Fact]:
    if settings is None:
        yield Fact("Search", "none", "presets only")
        return
    yield Fact("Sampler", settings.sampler.value)
    pruning = settings.pruning
    grace = f"after {counted(pruning.grace_epochs(settings.start.early_stopping_patience), 'epoch')}"
    needed = f"as good as {pruning.prune_share:.0%} of the other trials; the percentage grows with each later epoch"
    rule = f"{grace}, a trial is pruned unless it is at least {needed}"
    notes = {PrunerName.QUANTILE: rule, PrunerName.HYPERBAND: f"starts {grace}", PrunerName.NONE: ""}
    yield Fact("Pruner", pruning.pruner.value, notes[pruning.pruner])
    rule = f"search trial n is sampled from and pruned against the trials up to number n - {settings.parallelism}"
    yield Fact("Parallelism", str(settings.parallelism), rule)


def _worker_facts(attempts: list[Attempt]) -> Iterator[Fact]:
    if not attempts:
        return
    processes = {attempt.worker for attempt in attempts}
    hosts = sorted({worker.rpartition(":")[0] for worker in processes})
    yield Fact("Workers", counted(len(processes), "process", "processes"), listed(hosts, _MACHINES_SHOWN))
    stops = sum(attempt.after is StartedAfter.STOP for attempt in attempts)
    crashes = sum(attempt.after is StartedAfter.CRASH for attempt in attempts)
    yield Fact(
        "Interruptions", f"{stops} stopped, {crashes} crashed", "a trial is resumed from its last finished epoch"
    )


def space_rows(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return the name, the values and the condition of each setting in the search space; [] without a search."""
    space = fixed_space(snapshot.study) or ()
    return [(parameter.name, str(parameter.domain), _condition(parameter)) for parameter in space]


def _condition(parameter: Parameter) -> str:
    return " and ".join(f"{name} is {' or '.join(map(as_written, values))}" for name, values in parameter.when.items())


_PLOTS = {
    "worst_readings.png": "Validation images with the worst predictions",
    "confusion_matrix.png": "Confusion matrix",
}
_PNG = b"\x89PNG\r\n\x1a\n"
# Enough to compare trials; the preset that `best` writes has all digits.
_SETTING_DIGITS = 6


@dataclass(frozen=True)
class Winner:
    """The best trial of a study.

    Attributes:
        record: The trial's record.
        facts: The trial's results.
        varied: The settings that the search space contains, as YAML with rounded numbers, keyed by name.
        fixed: The other settings, in the same format.
        curves: Plots of loss and accuracy per epoch; empty if the metrics of the epochs are missing.
        plots: Plots of the trial's predictions as ``data:`` URLs, keyed by title.
        missing: Titles of the plots that the trial does not have.
        leader_note: Sentences about another trial that has a better monitored value; "" if no trial has one.
        commands: Pairs of a description and a command that uses the trial.
    """

    record: TrialRecord
    facts: tuple[Fact, ...]
    varied: Mapping[str, str]
    fixed: Mapping[str, str]
    curves: tuple[go.Figure, ...]
    plots: Mapping[str, str]
    missing: tuple[str, ...]
    leader_note: str
    commands: tuple[tuple[str, str], ...]


def find_winner(snapshot: Snapshot, output_dir: str) -> Winner | None:
    """Return the best trial; None if no trial has completed.

    Args:
        snapshot: The study at one moment.
        output_dir: The output folder as written in the commands of the report.
    """
    record = snapshot.winner
    if record is None or record.outcome is None:
        return None
    plots = dict(_plots(snapshot, record))
    config = record.training_config
    names = [item.name for item in fields(TrainingConfig) if item.name not in WITHOUT_EFFECT]
    settings = {name: short_text(getattr(config, name), _SETTING_DIGITS) for name in names}
    varied = snapshot.settings_of(record)
    return Winner(
        record=record,
        facts=tuple(_facts(record, record.outcome)),
        varied={name: text for name, text in settings.items() if name in varied},
        fixed={name: text for name, text in settings.items() if name not in varied},
        curves=tuple(_curves(snapshot.read_epochs(record.experiment_name), record.outcome)),
        plots=plots,
        missing=tuple(title for title in _PLOTS.values() if title not in plots),
        leader_note=_leader_note(snapshot, record),
        commands=tuple(_commands(snapshot, output_dir)),
    )


def _facts(record: TrialRecord, outcome: TrialOutcome) -> Iterator[Fact]:
    yield Fact("Character accuracy", value_text(outcome.best_val_char_accuracy))
    yield Fact("Sequence accuracy", value_text(outcome.best_val_seq_accuracy))
    if outcome.unseen_text:
        yield Fact("Accuracy on unseen designs", outcome.unseen_text, "designs that are in no other split")
    yield Fact("Size and speed", outcome.size_and_speed_text or NOTHING)
    yield Fact("Last training loss", value_text(outcome.final_train_loss))
    best = NOTHING if outcome.best_epoch is None else f"best in epoch {outcome.best_epoch}"
    yield Fact("Epochs", f"{outcome.total_epochs} of {record.training_config.num_epochs}", best)
    yield Fact("Ended", outcome.why_ended.text)
    if outcome.converged_epoch is not None:
        yield Fact("Converged", f"epoch {outcome.converged_epoch}", "the first epoch that meets both accuracy targets")
    seconds = outcome.epoch_seconds_median
    yield Fact("Seconds per epoch", NOTHING if seconds is None else f"{seconds:.1f}")
    yield Fact("Training time", duration_text(outcome.training_time_s))
    yield Fact("Seed", str(record.training_config.seed))


def _curves(epochs: Epochs, outcome: TrialOutcome) -> Iterator[go.Figure]:
    if epochs:
        lines = {"train_loss": ("training", GREY, "dot"), "val_loss": ("validation", BLUE, "solid")}
        yield _curve(epochs, lines, "loss", outcome)
        accuracies = {
            "train_char_accuracy": ("characters, training", GREY, "dot"),
            "val_char_accuracy": ("characters, validation", BLUE, "solid"),
            "train_seq_accuracy": ("sequences, training", "#d6b98c", "dot"),
            "val_seq_accuracy": ("sequences, validation", ORANGE, "solid"),
        }
        yield _curve(epochs, accuracies, "accuracy", outcome)


def _curve(epochs: Epochs, lines: Mapping[str, tuple[str, str, str]], title: str, outcome: TrialOutcome) -> go.Figure:
    figure = go.Figure()
    for name, (label, color, dash) in lines.items():
        figure.add_scatter(
            x=[epoch["epoch"] for epoch in epochs],
            y=[epoch[name] if math.isfinite(epoch[name]) else None for epoch in epochs],
            mode="lines+markers" if len(epochs) < 3 else "lines",
            name=label,
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate="%{y:.4f}",
        )
    if outcome.best_epoch is not None:
        figure.add_vline(x=outcome.best_epoch, line={"color": GREY, "width": 1, "dash": "dash"})
    styled(figure, height=340, xaxis_title="epoch", yaxis_title=title, hovermode="x unified")
    return figure


def _plots(snapshot: Snapshot, record: TrialRecord) -> Iterator[tuple[str, str]]:
    found = trial_artifacts(snapshot.trials[record.number], snapshot.folder)
    for name, title in _PLOTS.items():
        content = read_bytes(found[name]) if name in found else b""
        # A damaged file is listed as missing.
        if content.startswith(_PNG):
            yield title, f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _leader_note(snapshot: Snapshot, record: TrialRecord) -> str:
    leader = snapshot.status.leader_over(record.experiment_name)
    if leader is None:
        return ""
    return (
        f"By the monitored metric {snapshot.metric}, {leader.name} is better with {value_text(leader.best_value)}. "
        "The winner is the trial with the highest validation character accuracy; sequence accuracy decides ties."
    )


def _commands(snapshot: Snapshot, output_dir: str) -> Iterator[tuple[str, str]]:
    where = "" if output_dir == TrainingConfig.output_dir else f" --output-dir {shlex.quote(output_dir)}"
    metadata = shlex.quote(str(snapshot.invariants.dataset.get("metadata_path", "generated_data/metadata.yaml")))
    yield "Predict images", f"khmer-tuner predict image.png{where}"
    yield "Evaluate it on another split or dataset", f"khmer-tuner evaluate --metadata {metadata} --split test{where}"
    yield "Save its configuration as a preset", f"khmer-tuner best --out winner.yaml{where}"
    yield "Train that preset again", "khmer-tuner run --config winner.yaml --output-dir winner_output"
    yield "Compare it with the next two best trials on new seeds", f"khmer-tuner confirm --top 3 --seeds 3{where}"
