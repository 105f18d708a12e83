"""Files beside a trial that the dashboard shows: pictures and the effective settings.

They lie in ``artifacts`` of the output folder, under identifiers that follow from the trial's number and the file's
name: whoever goes on with a trial replaces its files and never doubles one.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, Trial

from search_spaces.diagnostics.atomic_files import write_bytes
from studies.storage.optuna_private import ARTIFACT_ATTRIBUTE, set_artifact_attribute
from studies.storage.output_folder import OutputFolder

# What a browser shows and does not run (see the guard of the dashboard), by the end of a file's name.
_MEDIA_TYPES = {".png": "image/png", ".yaml": "text/plain"}
_NAMESPACE = uuid.UUID("6d0a2c5e-0a51-4f0e-9b7e-6b686d657221")


class ArtifactFolder:
    """Optuna's artifact store on a folder: files are written whole, and no identifier leads out of the folder."""

    def __init__(self, path: Path) -> None:
        """Take the folder, made when the first file comes."""
        self._path = path

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            ArtifactNotFound: There is none.
        """
        path = self.path_of(artifact_id)
        # A link planted here could lead anywhere.
        if path.is_symlink() or not path.is_file():
            raise ArtifactNotFound(f"there is no artifact {artifact_id}")
        return path.open("rb")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write or replace a file atomically.

        Raises:
            OSError: It cannot be written; an older one is then as it was.
        """
        path = self.path_of(artifact_id)
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, content_body.read())

    def remove(self, artifact_id: str) -> None:
        """Remove a file.

        Raises:
            ArtifactNotFound: There is none.
        """
        try:
            self.path_of(artifact_id).unlink()
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"there is no artifact {artifact_id}") from error

    def path_of(self, artifact_id: str) -> Path:
        """Return where a file is or would be.

        Raises:
            ArtifactNotFound: No file of this package can have such an identifier.
        """
        try:
            canonical = str(uuid.UUID(artifact_id))
        except ValueError:
            canonical = None
        if canonical != artifact_id:
            raise ArtifactNotFound(f"{artifact_id!r} names no artifact")
        return self._path / artifact_id


def artifact_store(folder: OutputFolder) -> ArtifactFolder:
    """Return the artifact store of an output folder."""
    return ArtifactFolder(folder.path / "artifacts")


def save_artifact(trial: Trial, folder: OutputFolder, name: str, content: bytes) -> None:
    """Put a file beside a running trial, or another content into the file that is there.

    Args:
        trial: The trial, claimed by this process.
        folder: The study's folder.
        name: The file's name, a picture's or a configuration's: ``.png`` or ``.yaml``.
        content: The whole file.

    Raises:
        OSError: It cannot be written.
    """
    identifier = _identifier(trial.number, name)
    store = artifact_store(folder)
    path = store.path_of(identifier)
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, content)
    # After the file: what the study names is there.
    set_artifact_attribute(trial, identifier, name, _MEDIA_TYPES[Path(name).suffix])


def trial_artifacts(trial: FrozenTrial, folder: OutputFolder) -> dict[str, Path]:
    """Return the files beside a trial by name, those that the study knows of and that are there."""
    found = {}
    for attribute, text in trial.system_attrs.items():
        if attribute.startswith(ARTIFACT_ATTRIBUTE):
            name = json.loads(text)["filename"]
            path = artifact_store(folder).path_of(_identifier(trial.number, name))
            if path.is_file():
                found[name] = path
    return found


def _identifier(number: int, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{number}/{name}"))
