"""The output folder: which study it belongs to, and where things are in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from search_spaces.diagnostics.atomic_files import write_json
from search_spaces.diagnostics.disk_errors import disk_error_text, how_to_make_writable
from search_spaces.diagnostics.names import name_problem, path_problem
from search_spaces.errors import ConfigurationError
from search_spaces.files.file_locks import FileLock, wait_for_lock
from search_spaces.files.regular_files import parse_json, read_bytes
from studies.storage.open import BUSY_TIMEOUT_S, INTERNAL_FOLDER
from studies.storage.url import DATABASE_NAME, sqlite_path, sqlite_url, without_password

_PLACEHOLDER = "{output_dir}"


@dataclass(frozen=True)
class Owner:
    """What ``.study/owner.json`` says.

    Attributes:
        study: Name of the study that the folder belongs to.
        storage: Its storage URL without password; ``{output_dir}`` stands for the folder, which may be moved.
        folder_id: Tells this folder from every other one; the study knows it too.
    """

    study: str
    storage: str
    folder_id: str


class OutputFolder:
    """The folder that one study writes into.

    Attributes:
        path: The folder, absolute. It may be missing until `claim`.
        internal: Its ``.study`` folder: the owner file and the locks.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.internal = self.path / INTERNAL_FOLDER
        self._first_owner: Owner | None = None

    @property
    def confirmation_path(self) -> Path:
        """The results of `confirm`, in the folder of its repetitions beside this one."""
        return self.path.with_name(f"{self.path.name}_confirm") / "confirmation.json"

    def trial_dir(self, name: str) -> Path:
        """Return the folder of an experiment or a search trial; it may be missing still.

        Raises:
            ConfigurationError: If the name would lead out of this folder.
        """
        if name in ("", ".", "..") or Path(name).name != name or name.casefold() == INTERNAL_FOLDER:
            raise ConfigurationError(f"experiment name: found {name!r}; it cannot be a folder in {self.path}")
        return self.path / name

    def trial_dir_for_work(self, name: str) -> Path:
        """Return the folder of a trial that is about to be written to.

        Raises:
            ConfigurationError: As `trial_dir` and `check_in_place`, or if a link in it leads out of this folder.
        """
        self.check_in_place()
        path = self.trial_dir(name)
        problem = self._link_problem(_links(path))
        if problem is not None:
            raise ConfigurationError(f"output folder {self.path}: {problem}")
        return path

    def occupied(self, names: Iterable[str]) -> list[Path]:
        """Return the folders of these trials that are not empty."""
        return [path for path in map(self.trial_dir, names) if path.is_file() or any(path.glob("*"))]

    def holds(self, path: Path) -> bool:
        """Return whether a path is below this folder, also once all links are followed."""
        return Path(os.path.realpath(self.path)) in Path(os.path.realpath(path)).parents

    def lease_path(self, number: int) -> Path:
        """Return the lock file that is held while the trial of this number is worked on."""
        return self.internal / "leases" / f"{number:04d}.lock"

    @property
    def model_definitions_path(self) -> Path:
        """The study's own copy of its model definitions, so that it can go on without the file they came from."""
        return self.internal / "model_config.yaml"

    def lock(self) -> FileLock:
        """Create the folder if missing, and wait for the lock for changes of the study's settings and list of trials.

        Raises:
            ConfigurationError: As `check_in_place`, or if another process does not release the lock in time.
        """
        self.check_in_place()
        self.internal.mkdir(parents=True, exist_ok=True)
        return wait_for_lock(self.internal / "study.lock", timeout_s=BUSY_TIMEOUT_S)

    def owner(self) -> Owner | None:
        """Return whom the folder belongs to, or None if to nobody yet.

        Raises:
            ConfigurationError: If the owner file cannot be understood.
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
        """Refuse to continue if the folder, or the path in it that is needed, no longer exists.

        Raises:
            ConfigurationError: The folder's owner is not the one that was first read here, or the path is missing.
        """
        is_here = self._first_owner is None or self.owner() == self._first_owner
        if not is_here or not (needed is None or needed.exists()):
            raise ConfigurationError(
                f"{needed if is_here else f'output folder {self.path}'}: it was moved or removed while in use; move it "
                "back, or continue with `khmer-tuner resume --output-dir` and the new path of the output folder"
            )

    def check(self, study_name: str, storage_url: str) -> None:
        """Refuse a folder that the study cannot use; nothing is created or changed.

        Raises:
            ConfigurationError: If the study's name is bad, the folder cannot be written, or it belongs to
                another study or to another storage; or if a link in it leads elsewhere.
        """
        problem = name_problem(study_name)
        if problem is not None:
            raise ConfigurationError(f"study name: found {study_name!r}; {problem}")
        problem = self._place_problem() or self._link_problem(self._own_links())
        problem = problem or self._owner_problem(self.owner(), study_name, storage_url)
        if problem is not None:
            raise ConfigurationError(f"output folder {self.path}: {problem}")

    def claim(self, study_name: str, storage_url: str) -> None:
        """Create the folder if missing, and record in it the study that owns it, without any password; idempotent.

        Raises:
            ConfigurationError: As `check`, or if the folder cannot be created.
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
        """Return the URL that the owner file means, without a password."""
        url = without_password(owner.storage)
        return url.replace(_PLACEHOLDER, sqlite_url(self.path).removeprefix("sqlite:///"), 1)

    def keeps_storage(self, owner: Owner) -> bool:
        """Return whether the study's database is in this folder, so that the two come and go together."""
        return _PLACEHOLDER in owner.storage

    def is_owned_with(self, owner: Owner, storage_url: str) -> bool:
        """Return whether a URL means the owner's storage; passwords do not count."""
        return without_password(owner.storage) == self._portable(storage_url)

    def _portable(self, storage_url: str) -> str:
        path = sqlite_path(storage_url)
        if path is None:
            return without_password(storage_url)
        real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(self.path))
        if folder not in real.parents:
            return sqlite_url(real)
        return f"sqlite:///{_PLACEHOLDER}{sqlite_url(Path('/') / real.relative_to(folder)).removeprefix('sqlite:///')}"

    def _place_problem(self) -> str | None:
        problem = path_problem(self.path)
        if problem is not None:
            return f"{problem}; choose another --output-dir"
        nearest = next(place for place in (self.path, *self.path.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            return f"{nearest} is a file; choose another --output-dir"
        if not os.access(nearest, os.W_OK | os.X_OK):
            return f"nothing can be written in {nearest}; {how_to_make_writable(nearest)} or choose another --output-dir"
        return None

    def _own_links(self) -> Iterator[Path]:
        database = self.path / DATABASE_NAME
        files = (self.path / "artifacts", database, Path(f"{database}-journal"))
        return chain((path for path in files if os.path.islink(path)), _links(self.internal))

    def _link_problem(self, links: Iterable[Path]) -> str | None:
        outside = next((link for link in links if not self.holds(link)), None)
        if outside is None:
            return None
        target = os.path.realpath(outside)
        return f"{outside} is a link that leads out of it, to {target}; remove the link, or put here what it leads to"

    def _owner_problem(self, owner: Owner | None, study_name: str, storage_url: str) -> str | None:
        if owner is None:
            return None
        if owner.study != study_name:
            return (
                f"it belongs to the study {owner.study!r}, not to {study_name!r}; "
                f"choose another --output-dir, or --study {owner.study!r} to go on with that study"
            )
        if not self.is_owned_with(owner, storage_url):
            return (
                f"its study is kept in {self.storage_url(owner)}; "
                "give that as --storage, or choose another --output-dir for a study kept elsewhere"
            )
        return None


def _links(path: Path) -> Iterator[Path]:
    """Yield all links at a path and below it; they are not followed."""
    if os.path.islink(path):
        yield path
        return
    try:
        entries = os.scandir(path)
    except OSError:  # there is nothing, or nothing that can be looked at
        return
    with entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                yield from _links(Path(entry.path))
