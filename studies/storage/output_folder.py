"""The output folder of a study: its owner file, its paths and the checks before it is used."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from search_spaces.diagnostics.disk import disk_error_text, writable_remedy, write_json
from search_spaces.diagnostics.names import name_problem, path_problem
from search_spaces.errors import ConfigurationError
from search_spaces.files.file_locks import FileLock, wait_for_lock
from search_spaces.files.regular_files import parse_json, read_bytes
from studies.storage.open import BUSY_TIMEOUT_S, INTERNAL_FOLDER
from studies.storage.url import DATABASE_NAME, sqlite_path, sqlite_url, without_password

_PLACEHOLDER = "{output_dir}"


@dataclass(frozen=True)
class Owner:
    """The study that owns an output folder, as stored in ``.study/owner.json``.

    Attributes:
        study: Name of the study that owns the folder.
        storage: The study's storage URL without password; ``{output_dir}`` stands for the folder, which may be moved.
        folder_id: Unique identifier of the folder, which is also stored in the study.
    """

    study: str
    storage: str
    folder_id: str


class OutputFolder:
    """The output folder of one study.

    Attributes:
        path: Absolute path of the folder, which may be missing until `claim` creates it.
        internal: Path of the ``.study`` folder, which contains the owner file and the lock files.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.internal = self.path / INTERNAL_FOLDER
        self._first_owner: Owner | None = None

    @property
    def confirmation_path(self) -> Path:
        """The path of the results file of `confirm`, in a separate folder next to this folder."""
        return self.path.with_name(f"{self.path.name}_confirm") / "confirmation.json"

    def trial_dir(self, name: str) -> Path:
        """Return the path of a trial's folder, which may be missing.

        Args:
            name: The name of the preset or search trial.

        Raises:
            ConfigurationError: The name is not a valid name of a folder directly in this folder.
        """
        if name in ("", ".", "..") or Path(name).name != name or name.casefold() == INTERNAL_FOLDER:
            raise ConfigurationError(
                f"experiment name: found {name!r}; it cannot be a folder in {self.path}; choose another name"
            )
        return self.path / name

    def metrics_path(self, name: str) -> Path:
        """Return the path of the file with the metrics of a trial's epochs; see `trial_dir`."""
        return self.trial_dir(name) / "metrics.jsonl"

    def trial_dir_for_work(self, name: str) -> Path:
        """Check that files may be written to a trial's folder, and return its path.

        Raises:
            ConfigurationError: As `trial_dir` and `check_in_place`, or the folder contains a symbolic link to a target
                outside this output folder.
        """
        self.check_in_place()
        path = self.trial_dir(name)
        problem = self._link_problem(_links(path))
        if problem is not None:
            raise ConfigurationError(f"output folder {self.path}: {problem}")
        return path

    def occupied(self, names: Iterable[str]) -> list[Path]:
        """Return the paths of those trial folders that are not empty, or are files."""
        return [path for path in map(self.trial_dir, names) if path.is_file() or any(path.glob("*"))]

    def contains(self, path: Path) -> bool:
        """Return whether a path, with all symbolic links resolved, is inside this folder."""
        return Path(os.path.realpath(self.path)) in Path(os.path.realpath(path)).parents

    def lease_path(self, number: int) -> Path:
        """Return the path of the lock file for the lease of the trial with this number."""
        return self.internal / "leases" / f"{number:04d}.lock"

    @property
    def model_definitions_path(self) -> Path:
        """The path of the study's copy of the model definitions, which trials use instead of the original file."""
        return self.internal / "model_config.yaml"

    def lock(self) -> FileLock:
        """Create the folder if it is missing, and acquire the study lock.

        A process holds the study lock while it changes the study's attributes or its list of trials.

        Raises:
            ConfigurationError: As `check_in_place`, or another process does not release the lock in time.
        """
        self.check_in_place()
        self.internal.mkdir(parents=True, exist_ok=True)
        return wait_for_lock(self.internal / "study.lock", timeout_s=BUSY_TIMEOUT_S)

    def owner(self) -> Owner | None:
        """Read the owner file; return None if no study owns the folder.

        Raises:
            ConfigurationError: The owner file cannot be read.
        """
        if path_problem(self.path) is not None:
            return None
        path = self.internal / "owner.json"
        try:
            owner = Owner(**parse_json(read_bytes(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"{path}: cannot be read ({reason}); restore the file or choose another --output-dir"
            ) from error
        self._first_owner = self._first_owner or owner
        return owner

    def check_in_place(self, needed: Path | None = None) -> None:
        """Check that the folder was not moved or removed, and that the path `needed` in it exists.

        Raises:
            ConfigurationError: The owner is not the one that this object read first, or the path is missing.
        """
        is_here = self._first_owner is None or self.owner() == self._first_owner
        if not is_here or not (needed is None or needed.exists()):
            raise ConfigurationError(
                f"{needed if is_here else f'output folder {self.path}'}: it was moved or removed while in use; move it "
                "back, or continue with `khmer-tuner resume --output-dir` and the new path of the output folder"
            )

    def check(self, study_name: str, storage_url: str) -> None:
        """Check that a study can use this folder, without creating or changing anything.

        Raises:
            ConfigurationError: The study's name is invalid, the folder is not writable, a study with another name or
                storage owns the folder, or the folder contains a symbolic link to a target outside.
        """
        problem = name_problem(study_name)
        if problem is not None:
            raise ConfigurationError(f"study name: found {study_name!r}; {problem}")
        problem = self._path_problem() or self._link_problem(self._own_links())
        problem = problem or self._owner_problem(self.owner(), study_name, storage_url)
        if problem is not None:
            raise ConfigurationError(f"output folder {self.path}: {problem}")

    def claim(self, study_name: str, storage_url: str) -> None:
        """Create the folder if it is missing, and record the study, without its password, as the owner.

        If the study owns the folder already, nothing changes.

        Raises:
            ConfigurationError: As `check`, or the folder cannot be created.
        """
        self.check(study_name, storage_url)
        try:
            with self.lock():
                self.check(study_name, storage_url)
                if self.owner() is None:
                    self._first_owner = Owner(study_name, self._portable(storage_url), uuid.uuid4().hex)
                    write_json(self.internal / "owner.json", asdict(self._first_owner))
        except OSError as error:
            raise ConfigurationError(f"output folder {disk_error_text(error, self.path)}") from error

    def storage_url(self, owner: Owner) -> str:
        """Return the owner's storage URL with this folder's path in place of ``{output_dir}``, without a password."""
        url = without_password(owner.storage)
        return url.replace(_PLACEHOLDER, sqlite_url(self.path).removeprefix("sqlite:///"), 1)

    def contains_storage(self, owner: Owner) -> bool:
        """Return whether the study's database is in this folder, so that both are moved or removed together."""
        return _PLACEHOLDER in owner.storage

    def is_owner_storage(self, owner: Owner, storage_url: str) -> bool:
        """Return whether a URL is the owner's storage URL; passwords are ignored."""
        return without_password(owner.storage) == self._portable(storage_url)

    def _portable(self, storage_url: str) -> str:
        path = sqlite_path(storage_url)
        if path is None:
            return without_password(storage_url)
        real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(self.path))
        if folder not in real.parents:
            return sqlite_url(real)
        return f"sqlite:///{_PLACEHOLDER}{sqlite_url(Path('/') / real.relative_to(folder)).removeprefix('sqlite:///')}"

    def _path_problem(self) -> str | None:
        problem = path_problem(self.path)
        if problem is not None:
            return f"{problem}; choose another --output-dir"
        nearest = next(path for path in (self.path, *self.path.parents) if os.path.lexists(path))
        if not nearest.is_dir():
            return f"{nearest} is a file; choose another --output-dir"
        if not os.access(nearest, os.W_OK | os.X_OK):
            return f"nothing can be written in {nearest}; {writable_remedy(nearest)} or choose another --output-dir"
        return None

    def _own_links(self) -> Iterator[Path]:
        database = self.path / DATABASE_NAME
        files = (self.path / "artifacts", database, Path(f"{database}-journal"))
        return chain((path for path in files if os.path.islink(path)), _links(self.internal))

    def _link_problem(self, links: Iterable[Path]) -> str | None:
        outside = next((link for link in links if not self.contains(link)), None)
        if outside is None:
            return None
        target = os.path.realpath(outside)
        return (
            f"{outside} is a symbolic link to {target}, outside this folder; "
            "remove the link, or replace it with its target"
        )

    def _owner_problem(self, owner: Owner | None, study_name: str, storage_url: str) -> str | None:
        if owner is None:
            return None
        if owner.study != study_name:
            return (
                f"it belongs to the study {owner.study!r}, not to {study_name!r}; "
                f"choose another --output-dir, or use --study {owner.study!r} to continue that study"
            )
        if not self.is_owner_storage(owner, storage_url):
            return (
                f"its study is stored in {self.storage_url(owner)}; "
                "pass that URL as --storage, or choose another --output-dir for a study in another storage"
            )
        return None


def _links(path: Path) -> Iterator[Path]:
    """Yield all symbolic links at and below a path, without following them."""
    if os.path.islink(path):
        yield path
        return
    try:
        entries = os.scandir(path)
    except OSError:  # missing or unreadable
        return
    with entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                yield from _links(Path(entry.path))
