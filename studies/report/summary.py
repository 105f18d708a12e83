"""The summary and the environment of a study as named facts, and the rows of its search space."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces.diagnostics.wording import as_written, counted, listed
from search_spaces.space.space import Parameter
from studies.report.panels import NOTHING, duration_text, value_text
from studies.report.snapshot import Snapshot
from studies.sampling.pruning import PrunerName
from studies.status.status import RowState
from studies.study.presets import fixed_space
from studies.study.search_budget import SearchSettings, search_settings
from studies.trials.record import Attempt, StartedAfter

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
    crashes = sum(attempt.after in (StartedAfter.CRASH, StartedAfter.MEMORY_CRASH) for attempt in attempts)
    yield Fact(
        "Interruptions", f"{stops} stopped, {crashes} crashed", "a trial is resumed from its last finished epoch"
    )


def space_rows(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return the name, the values and the condition of each setting in the search space; [] without a search."""
    space = fixed_space(snapshot.study) or ()
    return [(parameter.name, str(parameter.domain), _condition(parameter)) for parameter in space]


def _condition(parameter: Parameter) -> str:
    return " and ".join(f"{name} is {' or '.join(map(as_written, values))}" for name, values in parameter.when.items())
