"""The import of a study file: a new study that equals the exported one."""

from __future__ import annotations

import optuna

from search_spaces.diagnostics.atomic_files import write_bytes
from search_spaces.errors import ConfigurationError
from search_spaces.files.regular_files import read_bytes
from studies.export.study_file import StudyFile
from studies.storage.open import open_storage
from studies.storage.optuna_private import add_trial, rename_study, set_study_attribute, study_attribute
from studies.storage.output_folder import OutputFolder
from studies.storage.url import check_storage_url, default_storage_url, mask_password
from studies.study.lifecycle import create_study, has_study, study_invariants
from studies.study.warm_start import PRIOR
from studies.trials.leases import study_lock
from studies.trials.records import own_records

# Names of studies that users choose contain no parentheses.
_UNFINISHED = "{} (unfinished import)"


def check_import(file: StudyFile, storage_url: str, name: str, folder: OutputFolder) -> None:
    """Check that a study can be imported; nothing is created.

    Args:
        file: The content of the study file.
        storage_url: The storage URL of the new study.
        name: Its name.
        folder: Its output folder.

    Raises:
        ConfigurationError: The folder or the storage is unsuitable or already contains a study.
    """
    check_storage_url(storage_url, output_dir=folder.path)
    folder.check(name, storage_url)
    # A killed import may have written some of the metrics.
    metrics = {folder.metrics_path(trial): text.encode() for trial, text in file.metrics.items()}
    occupied = folder.occupied({record.experiment_name for record in own_records(file.study)})
    found = [path for item in occupied for path in (item, *item.rglob("*")) if path.is_file()]
    foreign = [path for path in found if path not in metrics or read_bytes(path) != metrics[path]]
    if foreign:
        raise ConfigurationError(f"{foreign[0]}: the import did not write this file; choose another --output-dir")
    if has_study(storage_url, name):
        also = "" if storage_url == default_storage_url(folder.path) else ", and another --study name in this storage"
        raise ConfigurationError(
            f"output folder {folder.path}: {mask_password(storage_url)} already contains the study {name!r}; choose "
            f"another --output-dir{also}"
        )


def import_study(file: StudyFile, storage_url: str, name: str, folder: OutputFolder) -> None:
    """Create the study of a study file; a killed import leaves no study, and can be repeated.

    The arguments and errors are those of `check_import`.
    """
    check_import(file, storage_url, name, folder)
    storage, unfinished = open_storage(storage_url), _UNFINISHED.format(name)
    folder.claim(name, storage_url)
    with study_lock(storage, name, folder):
        check_import(file, storage_url, name, folder)
        if unfinished in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=unfinished, storage=storage)
        study = create_study(storage, unfinished, study_invariants(file.study))
        for key, value in file.study.user_attrs.items():
            study.set_user_attr(key, value)
        if (prior := study_attribute(file.study, PRIOR)) is not None:
            set_study_attribute(study, PRIOR, prior)
        for trial in file.study.get_trials(deepcopy=False):
            add_trial(study, trial)
        for trial_name, text in file.metrics.items():
            folder.trial_dir_for_work(trial_name).mkdir(exist_ok=True)
            write_bytes(folder.metrics_path(trial_name), text.encode(), temporary=folder.internal / "import.tmp")
        rename_study(study, name)
