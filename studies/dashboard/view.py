"""optuna-dashboard on one study of a database, with a clear answer when there is nothing to show."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import replace
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

import sqlalchemy
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError
from optuna_dashboard import wsgi

from search_spaces.errors import ConfigurationError
from studies.dashboard.artifacts import ArtifactFolder
from studies.dashboard.quick_lookup import look_up_quickly
from studies.dashboard.response import Answer, ask, asked_path, refusal
from studies.storage.open import open_storage_for_reading, storage_error_text
from studies.storage.optuna_private import cached_storage
from studies.storage.url import sqlite_path

_READS_DATABASE = re.compile(
    r"/(?:api/studies|csv|artifacts)(?:/(?P<study_id>-?\d+)(?:/(?P<trial_id>-?\d+)(?=/))?)?(?:/|$)"
)

_NOBODY = -1  # the number of no study and no trial

# Else the longest attribute of a trial makes its page several screens wide.
_LAYOUT = b"<style>main { min-width: 0 }</style>"


class StudyView:
    """optuna-dashboard on the database that is at a study's URL at the moment, as if no other study were in it.

    Optuna and its dashboard remember what has ended, which makes looking again cheap, and SQLite goes on reading a
    file that has been deleted. So when another file lies in its place, all of it is begun anew.
    """

    def __init__(self, url: str, study_name: str, artifacts: ArtifactFolder, *, patience_s: float) -> None:
        """Open a database.

        Args:
            url: The study's storage URL.
            study_name: Its name.
            artifacts: Its artifacts.
            patience_s: Seconds that a request waits for a database that another process holds.

        Raises:
            ConfigurationError: If the database cannot be read.
        """
        self._url = url
        self._study_name = study_name
        self._artifacts = artifacts
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._open()

    def answer(self, environ: WSGIEnvironment) -> Answer:
        """Return the answer to a request.

        Raises:
            Exception: If optuna-dashboard cannot show something that is there.
        """
        path = asked_path(environ)
        # optuna-dashboard expects a header that browsers always send.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        try:
            return self._gone(path) or self._alone(path, _laid_out(path, ask(self._app, environ)))
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
        # A finished trial is read only once; without a cache every request would read them all.
        self._app = wsgi(cached_storage(self._storage), self._artifacts)
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
        study_id = self._study_id()
        if match["study_id"] is None:
            return None
        if study_id is None or _number(match["study_id"]) != study_id:
            return refusal(HTTPStatus.NOT_FOUND, "there is no such study here any more")
        if match["trial_id"] and not self._has_trial(study_id, _number(match["trial_id"])):
            return refusal(HTTPStatus.NOT_FOUND, "there is no such trial here any more")
        return None

    def _study_id(self) -> int | None:
        try:
            return self._storage.get_study_id_from_name(self._study_name)
        except KeyError:
            return None

    def _has_trial(self, study_id: int, trial_id: int) -> bool:
        try:
            number = self._storage.get_trial_number_from_id(trial_id)
            return self._storage.get_trial_id_from_study_id_trial_number(study_id, number) == trial_id
        except (KeyError, OverflowError):  # the latter: nobody counts so far
            return False

    def _alone(self, path: str, answer: Answer) -> Answer:
        """Return the list of studies with this one alone, anything else as it is."""
        if path.rstrip("/") != "/api/studies" or answer.code != HTTPStatus.OK:
            return answer
        listed, study_id = json.loads(answer.body), self._study_id()
        listed["study_summaries"] = [one for one in listed["study_summaries"] if one["study_id"] == study_id]
        body = json.dumps(listed).encode()
        return replace(answer, body=body).having(Content_Length=str(len(body)))

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


def _number(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python reads so many digits only
        return _NOBODY


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
