"""Creating, joining and loading the study of an output folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from pydantic import TypeAdapter

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
    """The database has no such study, or a process that was killed while creating it left it unfinished."""


_INVARIANTS = "invariants"
_FOLDER = "folder"
_TARGETS = "targets"
_STORED, _NEEDED = TypeAdapter(StudyInvariants), itemgetter("fingerprint", "train_split", "val_split", "metadata_path")


def create_or_join_study(
    storage: RDBStorage, name: str, folder: OutputFolder, invariants: StudyInvariants
) -> optuna.Study:
    """Return the folder's study for work, created if missing; several processes may call it at once.

    Args:
        storage: From `open_storage`.
        name: The study's name.
        folder: The output folder; it becomes the study's own.
        invariants: Those of the calling run; models that the study does not know yet are added.

    Raises:
        ConfigurationError: The folder belongs to another study or the study to another folder, the study has other
            invariants (all differences are reported together), another program made it, or another machine trains it.
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
            study = _create_study(storage, name, invariants)
        if _INVARIANTS not in study.user_attrs:
            # A process that was killed between creating the study and this point left it without them.
            study = _set_invariants(study, storage, invariants)
        extended = study_invariants(study).extended(invariants).as_dict()
        if extended != study.user_attrs[_INVARIANTS]:
            study.set_user_attr(_INVARIANTS, extended)
    folder.claim(name, storage.url)  # only after the study: one that cannot be created must not bind the folder
    if not _is_on_server(study) and study.user_attrs.get(_FOLDER) != _folder_mark(folder):
        study.set_user_attr(_FOLDER, _folder_mark(folder))
    return study


def load_study(
    output_dir: str | Path, *, storage_url: str | None = None, name: str | None = None
) -> tuple[optuna.Study, OutputFolder]:
    """Return a folder's study for reading, and the folder; nothing is created or written, however wrong the arguments.

    Args:
        output_dir: The study's output folder.
        storage_url: Its storage, needed only to add a password.
        name: Its expected name; None for any.

    Raises:
        ConfigurationError: There is no study, or not the expected one.
    """
    owner, url = find_study(output_dir, storage_url=storage_url, name=name)
    study = _find_study(open_storage_for_reading(url), owner.study)
    if study is None or _INVARIANTS not in study.user_attrs:
        where = f"output folder {os.path.abspath(output_dir)}: its study"
        if not owner.folder_id:
            where = f"storage {mask_password(url)}: the study {owner.study!r}"
        raise StudyNotStartedError(f"{where} has not started yet; `khmer-tuner run` or `search` starts it")
    invariants = study_invariants(study)
    read_attribute(study, _INVARIANTS, lambda _: (invariants.definitions, _NEEDED(invariants.dataset)))
    read_attribute(study, "direction", lambda _: [invariants.direction].index(study.direction))
    folder = OutputFolder(output_dir)
    folder.owner()  # `check_in_place` compares with this owner from now on
    return study, folder


def load_study_for_changes(
    output_dir: str | Path, *, storage_url: str | None = None, name: str | None = None
) -> tuple[optuna.Study, OutputFolder]:
    """Return a folder's existing study for writing, and the folder; the arguments are those of `load_study`.

    Raises:
        ConfigurationError: As `load_study`, or if the study belongs to another folder.
    """
    existing, folder = load_study(output_dir, storage_url=storage_url, name=name)
    _, url = find_study(output_dir, storage_url=storage_url)
    study = _find_study(open_storage(url), existing.study_name)
    if study is None:
        raise ConfigurationError(f"study {existing.study_name!r}: it was deleted just now")
    _require_same_folder(study, folder)
    return study, folder


def find_study(output_dir: str | Path, *, storage_url: str | None = None, name: str | None = None) -> tuple[Owner, str]:
    """Return what a folder says of its study, and the study's storage URL; nothing is opened.

    A folder that no study has used, or that is missing, will do where the storage is a server's: on another machine.

    Args:
        output_dir: The study's output folder.
        storage_url: Its storage, needed only to add a password, or for a folder that no study has used.
        name: Its name, needed only to make sure, or for such a folder; None is the default name there.

    Raises:
        ConfigurationError: If the folder belongs to no study, or to another one than was asked for.
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
            "leave out --study or name another --output-dir"
        )
    url = storage_url or folder.storage_url(owner)
    check_storage_url(url, for_reading=True)
    if not folder.is_owner_storage(owner, url):
        raise ConfigurationError(
            f"output folder {folder.path}: its study is stored in {folder.storage_url(owner)}; leave out --storage"
        )
    return owner, url


def read_attribute(study: optuna.Study, name: str, parse: Callable[[Any], T], default: Any = None) -> T:
    """Return an attribute of a study (else the default), parsed and checked.

    Raises:
        ConfigurationError: The attribute is damaged.
    """
    try:
        return parse(study.user_attrs.get(name, default))
    except DECODING_ERRORS as error:
        raise ConfigurationError(damage_text(f"study {study.study_name!r}, attribute {name!r}", error)) from error


def study_invariants(study: optuna.Study) -> StudyInvariants:
    """Return the settings that all trials of a study share."""
    return read_attribute(study, _INVARIANTS, _STORED.validate_python)


def require_same_invariants(study: optuna.Study, folder: OutputFolder, invariants: StudyInvariants) -> None:
    """Refuse invariants that are not the study's; nothing is changed.

    Raises:
        ConfigurationError: There is a difference; all differences are reported together.
    """
    changes = study_invariants(study).changes(invariants)
    if changes:
        raise ConfigurationError([f"study {study.study_name!r}: {change}; {_remedy(folder)}" for change in changes])


def save_targets(study: optuna.Study, targets: Targets) -> None:
    """Store the targets of a study's experiments in the study."""
    data = targets.model_dump(mode="json")
    if study.user_attrs.get(_TARGETS) != data:
        study.set_user_attr(_TARGETS, data)


def study_targets(study: optuna.Study) -> Targets:
    """Return the targets of a study's experiments, as the latest run set them."""
    return read_attribute(study, _TARGETS, Targets.model_validate, {})


def version_notes(study: optuna.Study, invariants: StudyInvariants) -> tuple[str, ...]:
    """Return one line per library whose version is not the one that the study was created with."""
    before = study_invariants(study).versions
    return tuple(
        f"the study was begun with {library} {before[library]}, this is {version}; results may differ slightly"
        for library, version in invariants.versions.items()
        if before.get(library, version) != version
    )


def _require_owner(folder: OutputFolder) -> Owner:
    owner = folder.owner()
    if owner is not None:
        return owner
    what = (
        "it holds no study (.study/owner.json is missing)" if os.path.isdir(folder.path) else "there is no such folder"
    )
    raise ConfigurationError(
        f"output folder {folder.path}: {what}; name the --output-dir of a study, or begin one with `khmer-tuner run`"
    )


def _find_study(storage: RDBStorage, name: str) -> optuna.Study | None:
    try:
        # `prepare_sampling` sets sampler and pruner; presets need neither.
        return optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.NopPruner())
    except KeyError:
        return None


def _create_study(storage: RDBStorage, name: str, invariants: StudyInvariants) -> optuna.Study:
    study = optuna.create_study(
        study_name=name, storage=storage, direction=invariants.direction, pruner=optuna.pruners.NopPruner()
    )
    with warnings.catch_warnings():
        # It only labels the dashboard's axis; Optuna has called it experimental since 3.2.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([invariants.monitor])
    return study


def _set_invariants(study: optuna.Study, storage: RDBStorage, invariants: StudyInvariants) -> optuna.Study:
    if study.direction != invariants.direction or study.metric_names != [invariants.monitor]:
        optuna.delete_study(study_name=study.study_name, storage=storage)
        study = _create_study(storage, study.study_name, invariants)
    study.set_user_attr(_INVARIANTS, invariants.as_dict())
    return study


def _folder_mark(folder: OutputFolder) -> dict[str, str]:
    owner = folder.owner()
    return {"id": owner.folder_id if owner is not None else "", "path": os.path.realpath(folder.path)}


def _require_compatible(study: optuna.Study | None, folder: OutputFolder, invariants: StudyInvariants) -> None:
    if study is None:
        return
    name = study.study_name
    if _INVARIANTS not in study.user_attrs:
        # Another process may be creating it right now: it writes the invariants before anything else.
        has_trials = bool(study.get_trials(deepcopy=False))
        attributes = study.user_attrs
        if _INVARIANTS not in attributes:
            if has_trials or attributes:
                raise ConfigurationError(
                    f"study {name!r}: another program, or another version of this one, made it; "
                    "choose another --study name"
                )
            return
    _require_same_folder(study, folder)
    require_same_invariants(study, folder, invariants)


def _is_on_server(study: optuna.Study) -> bool:
    """Return whether leases are advisory locks in the database, not files in the folder."""
    return isinstance(rdb_storage(study), PostgresStorage)


def _require_same_folder(study: optuna.Study, folder: OutputFolder) -> None:
    """Refuse a second folder for a study whose leases are files in its folder."""
    if _is_on_server(study):
        return
    mine = _folder_mark(folder)
    known = mine | read_attribute(study, _FOLDER, TypeAdapter(dict[str, str]).validate_python, {})
    # At the known path this folder replaces one that is gone; elsewhere its id tells that it was moved or copied.
    if mine["path"] == known["path"]:
        return
    if mine["id"] == known["id"] and not _is_copy(folder, known["path"]):
        return
    raise ConfigurationError(
        f"study {study.study_name!r}: it belongs to the output folder {known['path']}, not to {folder.path}; "
        "choose that --output-dir, or another --study name; a copy without hard links (`cp -a`) is an independent study"
    )


def _is_copy(folder: OutputFolder, known_path: str) -> bool:
    """Return whether the original folder still exists, and both use the same database file, perhaps by a hard link."""
    owner, original = folder.owner(), OutputFolder(known_path)
    if owner is None or original.owner() != owner or os.path.samefile(folder.path, original.path):
        return False
    mine, other = (str(sqlite_path(place.storage_url(owner))) for place in (folder, original))
    return os.path.exists(other) and os.path.samefile(mine, other)


def _remedy(folder: OutputFolder) -> str:
    owner = folder.owner()
    shared = owner is not None and not folder.contains_storage(owner)
    return f"change it back, or begin another study with another --output-dir{' and --study' if shared else ''}"
