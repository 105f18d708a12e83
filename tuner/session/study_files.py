"""Studies outside their storage: study files, and earlier studies as the warm start of a search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import optuna

from search_spaces import ConfigurationError
from search_spaces.errors import ProblemCollector
from studies import (
    EarlierStudy,
    OutputFolder,
    StudyFile,
    earlier_study,
    load_study,
    read_study_file,
    study_file_text,
)
from tuner.training.history import STORED_METRICS, metrics_line, read_metrics


def exported_text(study: optuna.Study, folder: OutputFolder) -> str:
    """Return the content of the study file of a study, with the metrics of all epochs."""
    return study_file_text(study, lambda name: [asdict(epoch) for epoch in read_metrics(folder.trial_dir(name))])


def read_exported(path: str) -> StudyFile:
    """Read a study file; `studies.read_study_file` documents the errors."""
    return read_study_file(Path(path), lambda epoch: metrics_line(STORED_METRICS.validate_python(epoch)))


def load_earlier_studies(
    paths: Sequence[str], output_dir: str | Path, storage: str | None = None
) -> tuple[EarlierStudy, ...]:
    """Read the studies of output folders and study files, for the warm start of a search.

    Args:
        paths: The output folders and files.
        output_dir: The output folder of the new study.
        storage: The storage URL of the new study, whose password is also used for an earlier study in that storage.

    Raises:
        ConfigurationError: A study cannot be read, has no finished trial, or is the new study itself.
    """
    problems, earlier = ProblemCollector(), list[EarlierStudy]()
    for path in paths:
        with problems.collect():
            if os.path.realpath(path) == os.path.realpath(output_dir):
                raise ConfigurationError(f"{path}: found this study itself; choose an earlier study")
            earlier.append(earlier_study(Path(path).absolute().name, _study_of(path, storage)))
    try:
        problems.raise_all()
    except ConfigurationError as error:
        raise ConfigurationError([f"--warm-start: {problem}" for problem in error.problems]) from error
    return tuple(earlier)


def _study_of(path: str, storage: str | None) -> optuna.Study:
    if Path(path).is_file():
        return read_exported(path).study
    folder = OutputFolder(path)
    owner = folder.owner()
    is_same = storage is not None and owner is not None and folder.is_owner_storage(owner, storage)
    return load_study(path, storage_url=storage if is_same else None)[0]
