"""The moments at which a run is killed by name, and how a process is made to notice that it passes one.

Functions are replaced by ones that tell of themselves, in the process that is to die and nowhere else.
"""

from __future__ import annotations

import functools
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Told = Callable[..., object]
Concerns = Callable[..., bool]


# What a process passes only when it finds a trial that another one left running ends with this.
TAKE_OVER = "take-over"
# For this one, what it finds must lack nothing but its end: see `killing.schedule`.
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
class Boundary:
    """A call that changes what is on the disk; the moments before and after it are points to be killed at.

    Attributes:
        name: What is done.
        phase: Which part of a study does it.
        target: Dotted name of the function, where its caller looks it up.
        concerns: Whether a call with these arguments is one.
        sides: ``before``, ``after`` or both.
        samplers: The samplers that do it.
        storages: The storages with which it is done.
    """

    name: str
    phase: Phase
    target: str
    concerns: Concerns = lambda *arguments, **named: True
    sides: tuple[str, ...] = ("before", "after")
    samplers: tuple[str, ...] = ("tpe", "random", "gp")
    storages: tuple[Storage, ...] = tuple(Storage)

    @property
    def points(self) -> list[str]:
        """The names of its moments."""
        return [f"{side} {self.name}" for side in self.sides]


def watch(target: str, *, before: Told = lambda *_, **__: None, after: Told = lambda *_, **__: None) -> None:
    """Replace a function by one that tells of each call, with its arguments, before it begins and after it returned."""
    owner_name, _, name = target.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    function = getattr(owner, name)

    @functools.wraps(function)
    def watched(*arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        result = function(*arguments, **named)
        after(*arguments, **named)
        return result

    setattr(owner, name, watched)


def watch_boundaries(passed: Callable[[str], object]) -> None:
    """Have `passed` told the name of every point that this process passes from now on."""
    for boundary in BOUNDARIES:
        told = {side: _telling(boundary, side, passed) for side in boundary.sides}
        watch(boundary.target, **told)


def points(phase: Phase | None = None) -> list[str]:
    """Return the names of all points, or of those of a phase."""
    return [point for boundary in BOUNDARIES if phase in (None, boundary.phase) for point in boundary.points]


def boundaries_of(sampler: str, storage: Storage) -> list[Boundary]:
    """Return all that a study of this sampler in this storage does."""
    return [one for one in BOUNDARIES if sampler in one.samplers and storage in one.storages]


def _telling(boundary: Boundary, side: str, passed: Callable[[str], object]) -> Told:
    def tell(*arguments: Any, **named: Any) -> None:
        if boundary.concerns(*arguments, **named):
            passed(f"{side} {boundary.name}")

    return tell


def _named(name: str) -> Concerns:
    """Concern a file of this name (``*`` in front stands for any beginning), the first argument."""

    def concerns(path: os.PathLike[str], *rest: Any) -> bool:
        found = os.path.basename(path)
        return found.endswith(name[1:]) if name.startswith("*") else found == name

    return concerns


def _renamed(old: str, new: str) -> Concerns:
    """Concern the renaming of one file name to another."""

    def concerns(source: os.PathLike[str], target: os.PathLike[str], **named: Any) -> bool:
        return _named(old)(source) and _named(new)(target)

    return concerns


def _renaming(new: str, phase: Phase) -> Boundary:
    """Be killed when the temporary file is on the disk and has not taken its name."""
    return Boundary(f"renaming to {new}", phase, "os.replace", _renamed("*.tmp", new), sides=("before",))


def _snapshot(path: os.PathLike[str], *rest: Any) -> bool:
    return os.path.basename(path).startswith("epoch_")


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


BOUNDARIES = (
    Boundary("folder claimed", Phase.BEGIN, "studies.storage.output_folder.OutputFolder.claim"),
    _renaming("owner.json", Phase.BEGIN),
    Boundary("database created", Phase.BEGIN, "studies.storage.open._create_database", storages=(Storage.SQLITE,)),
    Boundary(
        "renaming to study.db",
        Phase.BEGIN,
        "os.replace",
        _renamed("unfinished.db", "study.db"),
        sides=("before",),
        storages=(Storage.SQLITE,),
    ),
    Boundary("tables created", Phase.BEGIN, "optuna.storages._rdb.models.BaseModel.metadata.create_all"),
    Boundary("study created", Phase.BEGIN, "studies.study.lifecycle._create_study"),
    Boundary("study attribute", Phase.BEGIN, "optuna.study.Study.set_user_attr"),
    _renaming("model_config.yaml", Phase.BEGIN),
    Boundary("preset enqueued", Phase.BEGIN, "optuna.study.Study.enqueue_trial", _enqueues("preset")),
    Boundary("search trial enqueued", Phase.BEGIN, "optuna.study.Study.enqueue_trial", _enqueues("search")),
    Boundary("claim", Phase.WORK, "studies.trials.claims.claim_waiting"),
    Boundary("second half of a claim", Phase.WORK, "sqlalchemy.Connection.execute", _inserts_attempts, ("before",)),
    Boundary(TAKE_OVER, Phase.WORK, "studies.trials.claims.take_over_running"),
    Boundary(f"half of a {TAKE_OVER}", Phase.WORK, "sqlalchemy.Connection.execute", _updates_attempts, ("after",)),
    Boundary("statement", Phase.WORK, "sqlalchemy.Connection.execute", _writes),
    Boundary(
        "look at the fence",
        Phase.WORK,
        "studies.storage.postgresql.PostgresStorage._guard",
        sides=("after",),
        storages=(Storage.POSTGRESQL,),
    ),
    Boundary("suggestion", Phase.WORK, "optuna.storages._CachedStorage.set_trial_param"),
    Boundary(
        "joint draw noted",
        Phase.WORK,
        "optuna.storages._CachedStorage.set_trial_system_attr",
        lambda storage, trial, key, value: not key.startswith("artifacts:"),
        samplers=("tpe", "gp"),
    ),
    Boundary("settings noted", Phase.WORK, "optuna.trial.Trial.set_user_attr", _sets("config")),
    Boundary("settings file", Phase.WORK, "tuner.training.loop.write_config"),
    Boundary("artifact", Phase.WORK, "studies.dashboard.artifacts.write_bytes"),
    Boundary("artifact noted", Phase.WORK, "studies.dashboard.artifacts.set_artifact_attribute"),
    Boundary("note", Phase.WORK, "studies.dashboard.notes.set_note"),
    Boundary("part of a note", Phase.WORK, "optuna.storages._CachedStorage.set_study_system_attr"),
    Boundary("epoch log rewritten", Phase.WORK, "tuner.training.recorder.Recorder.__init__"),
    Boundary("decision", Phase.WORK, "tuner.training.loop._end"),
    Boundary("epoch", Phase.WORK, "tuner.training.loop.run_epoch"),
    Boundary("training step", Phase.WORK, "tuner.training.epoch.train_step"),
    Boundary("best.pt", Phase.WORK, "tuner.training.loop.save_checkpoint"),
    _renaming("best.pt", Phase.WORK),
    Boundary("last.pt to previous.pt", Phase.WORK, "os.replace", _renamed("last.pt", "previous.pt")),
    Boundary("last.pt", Phase.WORK, "tuner.training.checkpoints.save_checkpoint", _named("last.pt")),
    _renaming("last.pt", Phase.WORK),
    Boundary("snapshot", Phase.WORK, "tuner.training.checkpoints.save_checkpoint", _snapshot),
    Boundary(
        "renaming to snapshot",
        Phase.WORK,
        "os.replace",
        lambda source, target, **named: _snapshot(target),
        sides=("before",),
    ),
    Boundary("last pictures", Phase.WORK, "tuner.training.recorder.Recorder.ended"),
    Boundary("epoch log", Phase.WORK, "tuner.training.recorder.Recorder.epoch"),
    Boundary("report", Phase.WORK, "optuna.trial.Trial.report"),
    Boundary("outcome", Phase.WORK, "studies.trials.claims.record_outcome"),
    Boundary(
        "half of an outcome",
        Phase.WORK,
        "optuna.storages.RDBStorage._set_trial_attr_without_commit",
        _writes_attribute("total_epochs"),
        sides=("after",),
    ),
    Boundary("tell", Phase.WORK, "optuna.study.Study.tell"),
    Boundary("lease released", Phase.WORK, "studies.trials.claims.Claim._give_back"),
    Boundary("last.pt removed", Phase.WORK, "tuner.training.checkpoints.CheckpointFolder.end"),
    Boundary(
        "worse trials' best.pt removed",
        Phase.WORK,
        "tuner.session.objective._remove_checkpoints",
        lambda records, folder: bool(records),
    ),
    Boundary("results", Phase.END, "tuner.workers.run_study.write_results"),
    _renaming("results.json", Phase.END),
)
