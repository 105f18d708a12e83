"""Artifacts of a trial that the dashboard shows: plots and the effective settings.

They are files in the folder ``artifacts`` of the output folder. The identifier of an artifact is computed from the
trial number and the file name, so a worker that resumes a trial replaces the files instead of duplicating them.
"""

from __future__ import annotations

import contextlib
import io
import json
import uuid
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, Trial

from search_spaces.diagnostics.disk import write_bytes
from studies.storage.optuna_private import ARTIFACT_ATTRIBUTE, DECODING_ERRORS, set_artifact_attribute
from studies.storage.output_folder import OutputFolder

# Media types that a browser displays without running code (see `guard`), keyed by file suffix.
_MEDIA_TYPES = {".png": "image/png", ".yaml": "text/plain"}
_NAMESPACE = uuid.UUID("6d0a2c5e-0a51-4f0e-9b7e-6b686d657221")


class ArtifactFolder(FileSystemArtifactStore):
    """Optuna's artifact store in a folder, with atomic writes and protection against path traversal.

    The first write creates the folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact's file for reading.

        Raises:
            ArtifactNotFound: The file does not exist or is a symbolic link.
        """
        path = self.path_of(artifact_id)
        # A symbolic link could point to any file outside the folder.
        if path.is_symlink() or not path.is_file():
            raise ArtifactNotFound(f"artifact {artifact_id}: {path} is not a file")
        return super().open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write or replace an artifact's file atomically.

        Raises:
            OSError: The file cannot be written; an existing file is unchanged.
        """
        path = self.path_of(artifact_id)
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact's file.

        Raises:
            ArtifactNotFound: The file does not exist.
        """
        self.path_of(artifact_id)
        super().remove(artifact_id)

    def path_of(self, artifact_id: str) -> Path:
        """Return the path of an artifact's file, which may not exist.

        Raises:
            ArtifactNotFound: The identifier is not a UUID in its canonical form, so it may be a path.
        """
        try:
            canonical = str(uuid.UUID(artifact_id))
        except ValueError:
            canonical = None
        if canonical != artifact_id:
            raise ArtifactNotFound(f"artifact: found {artifact_id!r}; expected a UUID in lower case")
        return self._path / artifact_id


def artifact_store(folder: OutputFolder) -> ArtifactFolder:
    """Return the artifact store of an output folder."""
    return ArtifactFolder(folder.path / "artifacts")


def save_artifact(trial: Trial, folder: OutputFolder, name: str, content: bytes) -> None:
    """Save a file as an artifact of a running trial; replace an artifact of the same name.

    Args:
        trial: The trial, which this process has claimed.
        folder: The study's output folder.
        name: The file name, with the suffix ``.png`` (a plot) or ``.yaml`` (settings).
        content: The content of the file.

    Raises:
        OSError: The file cannot be written.
    """
    identifier = _identifier(trial.number, name)
    artifact_store(folder).write(identifier, io.BytesIO(content))
    # The study lists the artifact only after its file exists.
    set_artifact_attribute(trial, identifier, name, _MEDIA_TYPES[Path(name).suffix])


def trial_artifacts(trial: FrozenTrial, folder: OutputFolder) -> dict[str, Path]:
    """Return the paths of a trial's existing artifact files, keyed by file name."""
    store = artifact_store(folder)
    names = set()
    for attribute, text in trial.system_attrs.items():
        with contextlib.suppress(*DECODING_ERRORS):
            if attribute.startswith(ARTIFACT_ATTRIBUTE):
                names.add(json.loads(text)["filename"])
    paths = {name: store.path_of(_identifier(trial.number, name)) for name in names}
    return {name: path for name, path in paths.items() if path.is_file()}


def _identifier(number: int, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{number}/{name}"))
