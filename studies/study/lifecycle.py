"""Functions that create, join, load and stop the study of an output folder."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from pydantic import Field, TypeAdapter

from search_spaces.errors import ConfigurationError
from search_spaces.experiments.schema import Targets
from studies.storage.open import open_storage, open_storage_for_reading
from studies.storage.optuna_private import DECODING_ERRORS, damage_text, rdb_storage
from studies.storage.output_folder import OutputFolder, Owner
from studies.storage.postgresql import PostgresStorage
from studies.storage.url import check_storage_url, mask_password, sqlite_path, without_password
from studies.study.invariants import StudyInvariants
from studies.trials.leases import require_single_machine_for_sqlite, study_lock

DEFAULT_STUDY_NAME = "khmer-ocr"
T = TypeVar("T")


class StudyNotStartedError(ConfigurationError):
    """The database does not contain the study, or a process was killed while creating it."""


_INVARIANTS = "invariants"
FOLDER = "folder"
_TARGETS = "targets"
_THREADS = "threads"
_STORED_THREADS = TypeAdapter(Annotated[int, Field(ge=1)] | None)
_STORED, _NEEDED = TypeAdapter(StudyInvariants), itemgetter("fingerprint", "train_split", "val_split", "metadata_path")


def create_or_join_study(
    storage: RDBStorage, name: str, folder: OutputFolder, invariants: StudyInvariants
) -> optuna.Study:
    """Create the study of an output folder, or join the existing one, for training.

    Several processes may call this at the same time.

    Args:
        storage: From `open_storage`.
        name: The study's name.
        folder: The output folder, which the study then owns.
        invariants: The invariants of this run; models that the study does not contain yet are added to it.

    Raises:
        ConfigurationError: The folder belongs to another study, or the study belongs to another folder, has other
            invariants (all differences are reported together), was created by another program, or is being trained by
            another machine.
    """
    folder.check(name, storage.url)
    # Checked before anything is created, and again under the lock.
    _require_compatible(_find_study(storage, name), folder, invariants)
    with study_lock(storage, name, folder):
        study = _find_study(storage, name)
        _require_compatible(study, folder, invariants)
        if study is not None:
            require_single_machine_for_sqlite(study, folder)
        else:
            study = create_study(storage, name, invariants)
        if _INVARIANTS not in study.user_attrs:
            # A process was killed after it created the study and before it stored the invariants.
            study = _set_invariants(study, storage, invariants)
        extended = study_invariants(study).extended(invariants).as_dict()
        if extended != study.user_attrs[_INVARIANTS]:
            study.set_user_attr(_INVARIANTS, extended)
    folder.claim(name, storage.url)  # after the study: a study that cannot be created must not own the folder
    if not _is_on_server(study) and study.user_attrs.get(FOLDER) != _folder_identity(folder):
        study.set_user_attr(FOLDER, _folder_identity(folder))
    return study


def load_study(
    output_dir: str | Path, *, storage_url: str | None = None, name: str | None = None
) -> tuple[optuna.Study, OutputFolder]:
    """Load the study of an output folder for reading, without creating or writing anything.

    Args:
        output_dir: The study's output folder.
        storage_url: The study's storage URL; needed only to add a password.
        name: The expected study name; None accepts any name.

    Returns:
        The study and its output folder.

    Raises:
        ConfigurationError: The folder has no study, or not the expected one.
    """
    owner, url = find_study(output_dir, storage_url=storage_url, name=name)
    study = _find_study(open_storage_for_reading(url), owner.study)
    if study is None or _INVARIANTS not in study.user_attrs:
        where = f"output folder {os.path.abspath(output_dir)}: its study"
        if not owner.folder_id:
            where = f"storage {mask_password(url)}: the study {owner.study!r}"
        raise StudyNotStartedError(f"{where} has not started yet; `khmer-tuner run` or `search` starts it")
    check_invariants(study)
    folder = OutputFolder(output_dir)
    folder.owner()  # stores the owner for the comparisons in `check_in_place`
    return study, folder


def load_study_for_changes(
    output_dir: str | Path, *, storage_url: str | None = None, name: str | None = None
) -> tuple[optuna.Study, OutputFolder]:
    """Load the existing study of an output folder for changes; arguments and return value are as in `load_study`.

    Raises:
        ConfigurationError: As `load_study`, or the study belongs to another folder.
    """
    existing, folder = load_study(output_dir, storage_url=storage_url, name=name)
    _, url = find_study(output_dir, storage_url=storage_url)
    study = _find_study(open_storage(url), existing.study_name)
    if study is None:
        raise ConfigurationError(
            f"study {existing.study_name!r}: it has just been deleted; start a new study with `khmer-tuner run`"
        )
    _require_same_folder(study, folder)
    return study, folder


def has_study(storage_url: str, name: str) -> bool:
    """Return whether a storage contains a study with this name; in an empty database on a server, creates the tables.

    Raises:
        ConfigurationError: The storage cannot be used.
    """
    path = sqlite_path(storage_url)
    if path is not None and not (path.exists() and path.stat().st_size):
        return False
    return _find_study(open_storage(storage_url), name) is not None


def create_study(storage: RDBStorage, name: str, invariants: StudyInvariants) -> optuna.Study:
    """Create an empty study."""
    study = optuna.create_study(
        study_name=name, storage=storage, direction=invariants.direction, pruner=optuna.pruners.NopPruner()
    )
    with warnings.catch_warnings():
        # The metric name is only an axis label in the dashboard.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([invariants.monitor])
    return study


def find_study(output_dir: str | Path, *, storage_url: str | None = None, name: str | None = None) -> tuple[Owner, str]:
    """Return the owner of an output folder and its study's storage URL, without opening the database.

    If the storage is a server, the folder may be missing or unused, for example on an additional machine.

    Args:
        output_dir: The study's output folder.
        storage_url: The study's storage URL; needed only to add a password, or for an unused folder.
        name: The expected study name; None accepts any name, and selects the default name for an unused folder.

    Raises:
        ConfigurationError: The folder belongs to no study, or to a study with another name or storage.
    """
    folder = OutputFolder(output_dir)
    if storage_url is not None:
        check_storage_url(storage_url, for_reading=True)
        if sqlite_path(storage_url) is None and folder.owner() is None:
            return Owner(name or DEFAULT_STUDY_NAME, without_password(storage_url), ""), storage_url
    owner = _require_owner(folder)
    if name is not None and name != owner.study:
        raise ConfigurationError(
            f"output folder {folder.path}: it belongs to the study {owner.study!r}, not to {name!r}; "
            "leave out --study, or choose another --output-dir"
        )
    url = storage_url or folder.storage_url(owner)
    check_storage_url(url, for_reading=True)
    if not folder.is_owner_storage(owner, url):
        raise ConfigurationError(
            f"output folder {folder.path}: its study is stored in {folder.storage_url(owner)}; leave out --storage"
        )
    return owner, url


def read_attribute(study: optuna.Study, name: str, parse: Callable[[Any], T], default: Any = None) -> T:
    """Parse a user attribute of a study, or the default if the study does not have the attribute.

    Raises:
        ConfigurationError: The attribute is damaged.
    """
    try:
        return parse(study.user_attrs.get(name, default))
    except DECODING_ERRORS as error:
        raise ConfigurationError(damage_text(f"study {study.study_name!r}, attribute {name!r}", error)) from error


def study_invariants(study: optuna.Study) -> StudyInvariants:
    """Return the study's invariants: the settings that all of its trials share."""
    return read_attribute(study, _INVARIANTS, _STORED.validate_python)


def check_invariants(study: optuna.Study) -> None:
    """Check that the invariants are complete and agree with the study's direction.

    Raises:
        ConfigurationError: They are damaged.
    """
    invariants = study_invariants(study)
    read_attribute(study, _INVARIANTS, lambda _: (invariants.definitions, _NEEDED(invariants.dataset)))
    read_attribute(study, "direction", lambda _: [invariants.direction].index(study.direction))


def require_same_invariants(study: optuna.Study, folder: OutputFolder, invariants: StudyInvariants) -> None:
    """Check that the given invariants are those of the study, without changing anything.

    Raises:
        ConfigurationError: The invariants differ; all differences are reported together.
    """
    changes = study_invariants(study).changes(invariants)
    if changes:
        remedy = _new_study_remedy(folder)
        raise ConfigurationError([f"study {study.study_name!r}: {change}, or {remedy}" for change in changes])


def save_targets(study: optuna.Study, targets: Targets) -> None:
    """Store the accuracy and time targets in the study."""
    data = targets.model_dump(mode="json")
    if study.user_attrs.get(_TARGETS) != data:
        study.set_user_attr(_TARGETS, data)


def study_targets(study: optuna.Study) -> Targets:
    """Return the study's targets, as set by the latest run."""
    return read_attribute(study, _TARGETS, Targets.model_validate, {})


def fix_threads(study: optuna.Study, folder: OutputFolder, threads: int) -> int:
    """Fix the number of PyTorch threads per worker if the study has none yet; return the study's number."""
    if study_threads(study) is None:
        with study_lock(rdb_storage(study), study.study_name, folder):
            if study_threads(study) is None:
                study.set_user_attr(_THREADS, threads)
    return study_threads(study) or threads


def study_threads(study: optuna.Study) -> int | None:
    """Return the number of PyTorch threads per worker, on which the last bits of CPU results depend; None if unset."""
    return read_attribute(study, _THREADS, _STORED_THREADS.validate_python)


def require_same_threads(study: optuna.Study, threads: int | None) -> None:
    """Check that a number of threads per worker is that of the study, if both are set.

    Raises:
        ConfigurationError: The numbers differ.
    """
    fixed = study_threads(study)
    if threads is not None and fixed not in (None, threads):
        raise ConfigurationError(
            f"study {study.study_name!r}: its workers train with --threads {fixed}, not {threads}; leave out the "
            "option, or start a new study with another --output-dir"
        )


def version_notes(study: optuna.Study, invariants: StudyInvariants) -> tuple[str, ...]:
    """Return a note for each library whose version has changed since the study was created."""
    before = study_invariants(study).versions
    return tuple(
        f"the study was created with {library} {before[library]} and now uses {version}; results may differ slightly"
        for library, version in invariants.versions.items()
        if before.get(library, version) != version
    )


def _require_owner(folder: OutputFolder) -> Owner:
    owner = folder.owner()
    if owner is not None:
        return owner
    what = (
        "the folder contains no study (the file .study/owner.json is missing)"
        if os.path.isdir(folder.path)
        else "there is no such folder"
    )
    raise ConfigurationError(
        f"output folder {folder.path}: {what}; choose the --output-dir of a study, or create one with `khmer-tuner run`"
    )


def _find_study(storage: RDBStorage, name: str) -> optuna.Study | None:
    try:
        # `prepare_sampling` sets sampler and pruner later; presets need neither.
        return optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.NopPruner())
    except KeyError:
        return None


def _set_invariants(study: optuna.Study, storage: RDBStorage, invariants: StudyInvariants) -> optuna.Study:
    if study.direction != invariants.direction or study.metric_names != [invariants.monitor]:
        optuna.delete_study(study_name=study.study_name, storage=storage)
        study = create_study(storage, study.study_name, invariants)
    study.set_user_attr(_INVARIANTS, invariants.as_dict())
    return study


def _folder_identity(folder: OutputFolder) -> dict[str, str]:
    owner = folder.owner()
    return {"id": owner.folder_id if owner is not None else "", "path": os.path.realpath(folder.path)}


def _require_compatible(study: optuna.Study | None, folder: OutputFolder, invariants: StudyInvariants) -> None:
    if study is None:
        return
    name = study.study_name
    if _INVARIANTS not in study.user_attrs:
        # Another process may be creating the study at this moment; it stores the invariants first.
        has_trials = bool(study.get_trials(deepcopy=False))
        attributes = study.user_attrs
        if _INVARIANTS not in attributes:
            if has_trials or attributes:
                raise ConfigurationError(
                    f"study {name!r}: it was created by another program, or by another version of this program; "
                    "choose another --study name"
                )
            return
    _require_same_folder(study, folder)
    require_same_invariants(study, folder, invariants)


def _is_on_server(study: optuna.Study) -> bool:
    """Return whether the study is on a PostgreSQL server, so its leases are advisory locks instead of files."""
    return isinstance(rdb_storage(study), PostgresStorage)


def _require_same_folder(study: optuna.Study, folder: OutputFolder) -> None:
    """Check that an output folder is that of the study, if the study's leases are files in its folder."""
    if _is_on_server(study):
        return
    current = _folder_identity(folder)
    stored = current | read_attribute(study, FOLDER, TypeAdapter(dict[str, str]).validate_python, {})
    # At the stored path, this folder replaces the former one; at another path, the same id means a move or a copy.
    if current["path"] == stored["path"]:
        return
    if current["id"] == stored["id"] and not _is_copy(folder, stored["path"]):
        return
    raise ConfigurationError(
        f"study {study.study_name!r}: it belongs to the output folder {stored['path']}, not to {folder.path}; "
        "choose that --output-dir or another --study name; to copy a study, use `cp -a` (without hard links)"
    )


def _is_copy(folder: OutputFolder, stored_path: str) -> bool:
    """Return whether the original folder still exists and both folders use one database file, e.g. by a hard link."""
    owner, original = folder.owner(), OutputFolder(stored_path)
    if owner is None or original.owner() != owner or os.path.samefile(folder.path, original.path):
        return False
    database, other = (str(sqlite_path(item.storage_url(owner))) for item in (folder, original))
    return os.path.exists(other) and os.path.samefile(database, other)


def _new_study_remedy(folder: OutputFolder) -> str:
    owner = folder.owner()
    shared = owner is not None and not folder.contains_storage(owner)
    return f"start a new study with another --output-dir{' and --study' if shared else ''}"


STOP = "stop"


def request_stop(study: optuna.Study) -> None:
    """Request that all current workers of a study, on any machine, stop after the current epoch.

    A request is a token in the study. A process reads the token when it starts, and stops once the token has changed.
    So a request does not stop processes that start later.

    Args:
        study: The study from `load_study_for_changes`.
    """
    study.set_user_attr(STOP, uuid.uuid4().hex)


def stop_token(study: optuna.Study) -> str:
    """Return the token of the latest stop request; "" if no stop was requested."""
    return str(study.user_attrs.get(STOP, ""))
