"""The named points at which a process is killed: before and after the calls that change what is on the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from typing import Any

from harness.replacement import Callback, watch

Concerns = Callable[..., bool]


# The points that a process passes only if another one has left a trial running end with this.
TAKE_OVER = "take-over"
# This one also counts as a death at that trial: see `kills.schedule`.
AFTER_TAKE_OVER = f"after {TAKE_OVER}"


class Phase(StrEnum):
    """Which part of a study a boundary belongs to."""

    BEGIN = "begin"
    WORK = "work"
    END = "end"


class Storage(StrEnum):
    """What keeps a study."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True)
class KillPoint:
    """A call that changes what is on the disk; a process may be killed before and after it.

    Attributes:
        name: What is done.
        phase: Which part of a study does it.
        target: Dotted name of the function, where its caller looks it up.
        concerns: Whether a call with these arguments is one.
        sides: ``before``, ``after`` or both.
        storages: The storages with which it is done.
    """

    name: str
    phase: Phase
    target: str
    concerns: Concerns = lambda *arguments, **named: True
    sides: tuple[str, ...] = ("before", "after")
    storages: tuple[Storage, ...] = tuple(Storage)

    @property
    def points(self) -> list[str]:
        """The names of its moments."""
        return [f"{side} {self.name}" for side in self.sides]


def watch_kill_points(passed: Callable[[str], object]) -> None:
    """Call `passed` with the name of every point that this process passes from now on."""
    for kill_point in KILL_POINTS:
        watch(kill_point.target, **{side: _passing(kill_point, side, passed) for side in kill_point.sides})


def points(phase: Phase | None = None) -> list[str]:
    """Return the names of all points, or of those of a phase."""
    return [point for kill_point in KILL_POINTS if phase in (None, kill_point.phase) for point in kill_point.points]


def kill_points_of(storage: Storage) -> list[KillPoint]:
    """Return the kill points of a study in this storage."""
    return [one for one in KILL_POINTS if storage in one.storages]


def _passing(kill_point: KillPoint, side: str, passed: Callable[[str], object]) -> Callback:
    def callback(*arguments: Any, **named: Any) -> None:
        if kill_point.concerns(*arguments, **named):
            passed(f"{side} {kill_point.name}")

    return callback


def _named(pattern: str) -> Concerns:
    """Concern a file whose name matches a pattern; it is the first argument."""
    return lambda path, *rest: fnmatch(os.path.basename(path), pattern)


def _renamed(old: str, new: str) -> Concerns:
    """Concern the renaming of a file, where both names match a pattern."""
    return lambda source, target, **named: _named(old)(source) and _named(new)(target)


def _renaming(new: str, phase: Phase, old: str = "*.tmp", storages: tuple[Storage, ...] = tuple(Storage)) -> KillPoint:
    """Return the moment when a temporary file is complete but still has its temporary name."""
    return KillPoint(f"renaming to {new}", phase, "os.replace", _renamed(old, new), ("before",), storages=storages)


def _enqueues(kind: str) -> Concerns:
    return lambda *arguments, user_attrs, **named: user_attrs["kind"] == kind


def _sets(wanted: str) -> Concerns:
    return lambda trial, key, value: key == wanted


def _writes_attribute(wanted: str) -> Concerns:
    return lambda storage, session, model, trial, key, value: key == wanted


def _writes(connection: Any, statement: Any, *rest: Any, **named: Any) -> bool:
    return getattr(statement, "is_dml", False)


def _inserts_attempts(connection: Any, statement: Any, *rest: Any, **named: Any) -> bool:
    return getattr(statement, "is_insert", False) and _is_about_attempts(statement)


def _updates_attempts(connection: Any, statement: Any, *rest: Any, **named: Any) -> bool:
    return getattr(statement, "is_update", False) and _is_about_attempts(statement)


def _is_about_attempts(statement: Any) -> bool:
    return statement.table.name == "trial_user_attributes" and "attempts" in statement.compile().params.values()


KILL_POINTS = (
    KillPoint("folder claimed", Phase.BEGIN, "studies.storage.output_folder.OutputFolder.claim"),
    _renaming("owner.json", Phase.BEGIN),
    KillPoint("database created", Phase.BEGIN, "studies.storage.open._create_database", storages=(Storage.SQLITE,)),
    _renaming("study.db", Phase.BEGIN, "unfinished.db", (Storage.SQLITE,)),
    KillPoint("tables created", Phase.BEGIN, "optuna.storages._rdb.models.BaseModel.metadata.create_all"),
    KillPoint("study created", Phase.BEGIN, "studies.study.lifecycle._create_study"),
    KillPoint("study attribute", Phase.BEGIN, "optuna.study.Study.set_user_attr"),
    _renaming("model_config.yaml", Phase.BEGIN),
    KillPoint("preset enqueued", Phase.BEGIN, "optuna.study.Study.enqueue_trial", _enqueues("preset")),
    KillPoint("search trial enqueued", Phase.BEGIN, "optuna.study.Study.enqueue_trial", _enqueues("search")),
    KillPoint("claim", Phase.WORK, "studies.trials.claims.claim_waiting"),
    KillPoint("second half of a claim", Phase.WORK, "sqlalchemy.Connection.execute", _inserts_attempts, ("before",)),
    KillPoint(TAKE_OVER, Phase.WORK, "studies.trials.claims.take_over_running"),
    KillPoint(f"half of a {TAKE_OVER}", Phase.WORK, "sqlalchemy.Connection.execute", _updates_attempts, ("after",)),
    KillPoint("statement", Phase.WORK, "sqlalchemy.Connection.execute", _writes),
    KillPoint(
        "look at the fence",
        Phase.WORK,
        "studies.storage.postgresql.PostgresStorage._guard",
        sides=("after",),
        storages=(Storage.POSTGRESQL,),
    ),
    KillPoint("suggestion", Phase.WORK, "optuna.storages._CachedStorage.set_trial_param"),
    KillPoint("settings noted", Phase.WORK, "optuna.trial.Trial.set_user_attr", _sets("config")),
    KillPoint("settings file", Phase.WORK, "tuner.training.loop.write_config"),
    KillPoint("artifact", Phase.WORK, "studies.dashboard.artifacts.write_bytes"),
    KillPoint("artifact noted", Phase.WORK, "studies.dashboard.artifacts.set_artifact_attribute"),
    KillPoint("note", Phase.WORK, "studies.dashboard.notes._save"),
    KillPoint("part of a note", Phase.WORK, "optuna.storages._CachedStorage.set_study_system_attr"),
    KillPoint("epoch log rewritten", Phase.WORK, "tuner.training.recorder.Recorder.__init__"),
    KillPoint("decision", Phase.WORK, "tuner.training.loop._reason_to_end"),
    KillPoint("epoch", Phase.WORK, "tuner.training.loop.run_epoch"),
    KillPoint("training step", Phase.WORK, "tuner.training.epoch.train_step"),
    KillPoint("best.pt", Phase.WORK, "tuner.training.loop.save_checkpoint"),
    _renaming("best.pt", Phase.WORK),
    KillPoint("last.pt to previous.pt", Phase.WORK, "os.replace", _renamed("last.pt", "previous.pt")),
    KillPoint("last.pt", Phase.WORK, "tuner.training.checkpoints.save_checkpoint", _named("last.pt")),
    _renaming("last.pt", Phase.WORK),
    KillPoint("snapshot", Phase.WORK, "tuner.training.checkpoints.save_checkpoint", _named("epoch_*")),
    KillPoint("renaming to snapshot", Phase.WORK, "os.replace", _renamed("*", "epoch_*"), ("before",)),
    KillPoint("last plots", Phase.WORK, "tuner.training.recorder.Recorder.ended"),
    KillPoint("epoch log", Phase.WORK, "tuner.training.recorder.Recorder.epoch"),
    KillPoint("report", Phase.WORK, "optuna.trial.Trial.report"),
    KillPoint("outcome", Phase.WORK, "studies.trials.claims.record_outcome"),
    KillPoint(
        "uncommitted outcome",
        Phase.WORK,
        "optuna.storages.RDBStorage._set_trial_attr_without_commit",
        _writes_attribute("outcome"),
        sides=("after",),
    ),
    KillPoint("tell", Phase.WORK, "optuna.study.Study.tell"),
    KillPoint("lease released", Phase.WORK, "studies.trials.claims.Claim._give_back"),
    KillPoint("last.pt removed", Phase.WORK, "tuner.training.checkpoints.CheckpointFolder.delete_resume_files"),
    KillPoint(
        "worse trials' best.pt removed",
        Phase.WORK,
        "tuner.session.checkpoint_retention._remove_checkpoints",
        lambda records, folder: bool(records),
    ),
    KillPoint("results", Phase.END, "tuner.workers.run_study.write_results"),
    _renaming("results.json", Phase.END),
)
