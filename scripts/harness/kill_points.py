"""The named points at which a process is killed: before and after calls that change files or the database."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from typing import Any

from harness.replacement import Callback, watch

Condition = Callable[..., bool]

# Suffix of the names of points that a process passes only if a killed process has left a running trial.
TAKE_OVER = "take-over"


class Phase(StrEnum):
    """The phase of a study in which processes pass a kill point; an import takes the place of all others."""

    CREATE = "create"
    WORK = "work"
    END = "end"
    IMPORT = "import"


class Storage(StrEnum):
    """The database system that stores a study."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True)
class KillPoint:
    """A function whose call changes files or the database; a process may be killed before and after the call.

    Attributes:
        name: Name of the step in the table of kills and, after ``before`` or ``after``, in `--at`.
        phase: Phase of a study in which the function is called.
        target: Dotted name of the function, where its caller looks it up.
        applies: Returns whether a call with these arguments counts.
        sides: ``before``, ``after`` or both.
        storages: Database systems with which the function is called.
    """

    name: str
    phase: Phase
    target: str
    applies: Condition = lambda *arguments, **named: True
    sides: tuple[str, ...] = ("before", "after")
    storages: tuple[Storage, ...] = tuple(Storage)

    @property
    def points(self) -> list[str]:
        """Names of the points before and after the call; only those in `sides`."""
        return [f"{side} {self.name}" for side in self.sides]


def watch_kill_points(passed: Callable[[str], object]) -> None:
    """Call `passed` with the name of each point that this process passes from now on."""
    for kill_point in KILL_POINTS:
        watch(kill_point.target, **{side: _passing(kill_point, side, passed) for side in kill_point.sides})


def points(phase: Phase | None = None) -> list[str]:
    """Return the names of all points, or only of those in a phase."""
    return [point for kill_point in KILL_POINTS if phase in (None, kill_point.phase) for point in kill_point.points]


def kill_points_of(storage: Storage) -> list[KillPoint]:
    """Return the kill points that the processes that train a study in this storage pass."""
    return [one for one in KILL_POINTS if storage in one.storages and one.phase is not Phase.IMPORT]


def _passing(kill_point: KillPoint, side: str, passed: Callable[[str], object]) -> Callback:
    def callback(*arguments: Any, **named: Any) -> None:
        if kill_point.applies(*arguments, **named):
            passed(f"{side} {kill_point.name}")

    return callback


def _named(pattern: str) -> Condition:
    """Return a condition that accepts calls whose first argument is the path of a file with a matching name."""
    return lambda path, *rest: fnmatch(os.path.basename(path), pattern)


def _renamed(old: str, new: str) -> Condition:
    """Return a condition that accepts calls that rename a file if its old and its new name match the patterns."""
    return lambda source, target, **named: _named(old)(source) and _named(new)(target)


def _renaming(new: str, phase: Phase, old: str = "*.tmp", storages: tuple[Storage, ...] = tuple(Storage)) -> KillPoint:
    """Return the kill point before a rename, when a temporary file is complete but not yet renamed."""
    return KillPoint(f"renaming to {new}", phase, "os.replace", _renamed(old, new), ("before",), storages=storages)


def _enqueues(kind: str) -> Condition:
    return lambda *arguments, user_attrs, **named: user_attrs["kind"] == kind


def _sets(wanted: str) -> Condition:
    return lambda trial, key, value: key == wanted


def _writes_attribute(wanted: str) -> Condition:
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
    KillPoint("folder claimed", Phase.CREATE, "studies.storage.output_folder.OutputFolder.claim"),
    _renaming("owner.json", Phase.CREATE),
    KillPoint("database created", Phase.CREATE, "studies.storage.open._create_database", storages=(Storage.SQLITE,)),
    _renaming("study.db", Phase.CREATE, "unfinished.db", (Storage.SQLITE,)),
    KillPoint("tables created", Phase.CREATE, "optuna.storages._rdb.models.BaseModel.metadata.create_all"),
    KillPoint("study created", Phase.CREATE, "studies.study.lifecycle.create_study"),
    KillPoint("study attribute", Phase.CREATE, "optuna.study.Study.set_user_attr"),
    _renaming("model_config.yaml", Phase.CREATE),
    KillPoint("preset enqueued", Phase.CREATE, "optuna.study.Study.enqueue_trial", _enqueues("preset")),
    KillPoint("search trial enqueued", Phase.CREATE, "optuna.study.Study.enqueue_trial", _enqueues("search")),
    KillPoint("claim", Phase.WORK, "studies.trials.claims.claim_waiting"),
    KillPoint("second half of a claim", Phase.WORK, "sqlalchemy.Connection.execute", _inserts_attempts, ("before",)),
    KillPoint(TAKE_OVER, Phase.WORK, "studies.trials.claims.take_over_running"),
    # After the UPDATE of the trial's attempts and before its commit.
    KillPoint(f"half of a {TAKE_OVER}", Phase.WORK, "sqlalchemy.Connection.execute", _updates_attempts, ("after",)),
    KillPoint("statement", Phase.WORK, "sqlalchemy.Connection.execute", _writes),
    KillPoint(
        "fence check",
        Phase.WORK,
        "studies.storage.postgresql.PostgresStorage._guard",
        sides=("after",),
        storages=(Storage.POSTGRESQL,),
    ),
    KillPoint("suggestion", Phase.WORK, "optuna.storages._CachedStorage.set_trial_param"),
    KillPoint("settings stored", Phase.WORK, "optuna.trial.Trial.set_user_attr", _sets("config")),
    KillPoint("settings file", Phase.WORK, "tuner.training.loop.write_config"),
    KillPoint("artifact file", Phase.WORK, "studies.dashboard.artifacts.write_bytes"),
    KillPoint("artifact stored", Phase.WORK, "studies.dashboard.artifacts.set_artifact_attribute"),
    KillPoint("note", Phase.WORK, "studies.dashboard.notes._save"),
    KillPoint("part of a note", Phase.WORK, "optuna.storages._CachedStorage.set_study_system_attr"),
    KillPoint("epoch log rewritten", Phase.WORK, "tuner.training.recorder.Recorder.__init__"),
    KillPoint("end-of-epoch decision", Phase.WORK, "tuner.training.loop._reason_to_end"),
    KillPoint("epoch", Phase.WORK, "tuner.training.loop.run_epoch"),
    KillPoint("training step", Phase.WORK, "tuner.training.epoch.train_step"),
    KillPoint("best.pt", Phase.WORK, "tuner.training.loop.save_checkpoint"),
    _renaming("best.pt", Phase.WORK),
    KillPoint("last.pt to previous.pt", Phase.WORK, "os.replace", _renamed("last.pt", "previous.pt")),
    KillPoint("last.pt", Phase.WORK, "tuner.training.checkpoints.save_checkpoint", _named("last.pt")),
    _renaming("last.pt", Phase.WORK),
    KillPoint("snapshot", Phase.WORK, "tuner.training.checkpoints.save_checkpoint", _named("epoch_*")),
    KillPoint("renaming to snapshot", Phase.WORK, "os.replace", _renamed("*", "epoch_*"), ("before",)),
    KillPoint("final plots", Phase.WORK, "tuner.training.recorder.Recorder.ended"),
    KillPoint("epoch log", Phase.WORK, "tuner.training.recorder.Recorder.epoch"),
    KillPoint("report of a value", Phase.WORK, "optuna.trial.Trial.report"),
    KillPoint("outcome", Phase.WORK, "studies.trials.claims.record_outcome"),
    KillPoint(
        "uncommitted outcome",
        Phase.WORK,
        "optuna.storages.RDBStorage._set_trial_attr_without_commit",
        _writes_attribute("outcome"),
        sides=("after",),
    ),
    KillPoint("tell", Phase.WORK, "optuna.study.Study.tell"),
    KillPoint("lease released", Phase.WORK, "studies.trials.claims.Claim._release_once"),
    KillPoint("last.pt removed", Phase.WORK, "tuner.training.checkpoints.CheckpointFolder.delete_resume_files"),
    KillPoint(
        "worse trials' best.pt removed",
        Phase.WORK,
        "tuner.session.checkpoint_retention._delete_checkpoints",
        lambda records, folder: bool(records),
    ),
    KillPoint("results", Phase.END, "tuner.workers.run_study.write_results"),
    _renaming("results.json", Phase.END),
    KillPoint("trial imported", Phase.IMPORT, "studies.export.study_file.add_trial"),
    _renaming("metrics.jsonl", Phase.IMPORT, "import.tmp"),
    KillPoint("study renamed", Phase.IMPORT, "studies.export.study_file.rename_study"),
)
