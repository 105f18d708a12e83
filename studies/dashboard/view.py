"""optuna-dashboard on the database of a study, with a clear answer when there is nothing to show."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

import sqlalchemy
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError
from optuna.storages import get_storage
from optuna_dashboard import wsgi  # type: ignore[import-untyped]

from search_spaces.errors import ConfigurationError
from studies.artifacts import ArtifactFolder
from studies.dashboard.answer import Answer, ask, refusal
from studies.dashboard.quick_lookup import look_up_quickly
from studies.storage import open_storage_for_reading, storage_error_text
from studies.storage_url import sqlite_path

_READS_DATABASE = re.compile(
    r"/(?:api/studies|csv|artifacts)(?:/(?P<study_id>-?\d+)(?:/(?P<trial_id>-?\d+)(?=/))?)?(?:/|$)"
)

# Else the longest attribute of a trial makes its page several screens wide.
_LAYOUT = b"<style>main { min-width: 0 }</style>"


class StudyView:
    """optuna-dashboard on the database that is at a study's URL at the moment.

    Optuna and its dashboard remember what has ended, which makes looking again cheap, and SQLite goes on reading a
    file that has been deleted. So when another file lies in its place, all of it is begun anew.
    """

    def __init__(self, url: str, artifacts: ArtifactFolder, *, patience_s: float) -> None:
        """Open a database.

        Args:
            url: The study's storage URL.
            artifacts: Its artifacts.
            patience_s: Seconds that a request waits for a database that another process holds.

        Raises:
            ConfigurationError: If the database cannot be read.
        """
        self._url = url
        self._artifacts = artifacts
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._open()

    def answer(self, environ: WSGIEnvironment) -> Answer:
        """Return the answer to a request.

        Raises:
            Exception: If optuna-dashboard cannot show something that is there.
        """
        path = environ["PATH_INFO"]
        # optuna-dashboard expects a header that browsers always send.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        try:
            return self._gone(path) or _laid_out(path, ask(self._app, environ))
        except ArtifactNotFound:
            return refusal(HTTPStatus.NOT_FOUND, "the file of this artifact is gone")
        except ConfigurationError as error:
            return _unavailable(str(error))
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            return _unavailable(storage_error_text(error, self._url))

    def _open(self) -> None:
        look_up_quickly()
        file = _file_identity(self._url)
        self._storage = open_storage_for_reading(self._url, busy_timeout_s=self._patience_s)
        # Optuna's cache reads a trial that has ended only once; without it every look at the page would read them all.
        self._app = wsgi(get_storage(self._storage), self._artifacts)
        # Errors are answered here, not with a traceback.
        self._app.catchall = False
        self._file = file

    def _gone(self, path: str) -> Answer | None:
        """Look up what is asked for: optuna-dashboard itself has no clear answer if it is gone or cannot be read.

        Raises:
            ConfigurationError: If the database is gone.
            StorageInternalError, sqlalchemy.exc.SQLAlchemyError: If it cannot be read.
        """
        match = _READS_DATABASE.match(path)
        if match is None:
            return None
        self._follow_file()
        if match["study_id"] is None:
            self._storage.get_current_version()  # something that has to be read
        elif not _has(self._storage.get_study_name_from_id, match["study_id"]):
            return refusal(HTTPStatus.NOT_FOUND, "there is no such study here any more")
        elif match["trial_id"] and not _has(self._storage.get_trial_number_from_id, match["trial_id"]):
            return refusal(HTTPStatus.NOT_FOUND, "there is no such trial here any more")
        return None

    def _follow_file(self) -> None:
        """Open the database anew if its file is another one.

        Raises:
            ConfigurationError: If there is none now, or it cannot be read.
        """
        with self._lock:
            if _file_identity(self._url) != self._file:
                before = self._storage
                self._open()
                before.engine.dispose()


def _laid_out(path: str, answer: Answer) -> Answer:
    """Return a page with `_LAYOUT`, anything else as it is."""
    if not path.startswith("/dashboard") or b"</head>" not in answer.body:
        return answer
    body = answer.body.replace(b"</head>", _LAYOUT + b"</head>", 1)
    return replace(answer, body=body).having(Content_Length=str(len(body)))


def _has(find: Callable[[int], object], number: str) -> bool:
    try:
        find(int(number))
    except (KeyError, OverflowError, ValueError):  # the latter two: nobody counts so far
        return False
    return True


def _file_identity(url: str) -> tuple[int, int] | None:
    """Return what tells a database file from another one at the same path; None if there is none."""
    path = sqlite_path(url)
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _unavailable(text: str) -> Answer:
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, text).having(Retry_After="10")
