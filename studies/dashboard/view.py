"""The web application that shows a study: optuna-dashboard on its database and artifacts, behind the guard."""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna_dashboard import wsgi
from werkzeug.wrappers import Response

from search_spaces.errors import ConfigurationError
from studies.dashboard.artifacts import ArtifactFolder, artifact_store
from studies.dashboard.guard import ReadOnlyGuard, refusal, requested_path
from studies.dashboard.quick_lookup import look_up_quickly
from studies.dashboard.server import Address
from studies.storage.open import DATABASE_ERRORS, open_storage_for_reading, storage_error_text
from studies.storage.optuna_private import cached_storage, rdb_storage
from studies.storage.output_folder import OutputFolder
from studies.storage.url import sqlite_path

# A page polls every few seconds, so a request need not wait as long as a worker does.
PATIENCE_S = 10.0
_READS_DATABASE = re.compile(
    r"/(?:api/studies|csv|artifacts)(?:/(?P<study_id>-?\d+)(?:/(?P<trial_id>-?\d+)(?=/))?)?(?:/|$)"
)

_NO_ID = -1  # no study and no trial has it

# A long attribute of a trial must not make its page several screens wide, and names need room in the list of trials.
# What changes a study is refused, so its buttons and the field for files are not shown.
_STYLE = b"""<style>
main { min-width: 0 }
div:has(> ul > li > [aria-label="Filter"]) { min-width: 20rem; white-space: nowrap }
[aria-label="rename study"], [aria-label="delete study"], [aria-label="delete artifact"],
[class*="MuiCard"]:has([data-testid="UploadFileIcon"]),
button:has([data-testid="AddBoxIcon"], [data-testid="StopCircleIcon"], [data-testid="EditIcon"]) {
  display: none !important
}
</style>"""
# The list of trials in the front end's script. In another version that has another form, it has no names.
_LISTED = re.compile(rb"primary:`Trial \$\{(\w+)\.number\}`")
_NAMED = rb"primary:`Trial ${\1.number} ${(\1.user_attrs.find(a=>a.key==='experiment_name')||{value:''}).value}`"


def dashboard_app(
    study: optuna.Study,
    folder: OutputFolder,
    address: Address,
    *,
    tell: Callable[[str], None],
    debug: bool = False,
    patience_s: float = PATIENCE_S,
) -> ReadOnlyGuard:
    """Return the web application that shows a study; no request changes the study.

    Args:
        study: From `load_study`.
        folder: The study's output folder, with its artifacts.
        address: Where the application will be served; requests for other hosts are refused.
        tell: Receives a line about each request that failed.
        debug: Also report every request, and errors with their traceback.
        patience_s: Seconds that a request waits for a locked database.

    Raises:
        ConfigurationError: If the database cannot be read.
    """
    view = _StudyView(rdb_storage(study).url, study.study_name, artifact_store(folder), patience_s)
    return ReadOnlyGuard(view.answer, address, tell=tell, debug=debug)


def page_path(study: optuna.Study) -> str:
    """Return the path of the study's own page in the dashboard."""
    return f"/dashboard/studies/{rdb_storage(study).get_study_id_from_name(study.study_name)}"


class _StudyView:
    """optuna-dashboard for the database at a study's URL, as if no other study were in it.

    Optuna and its dashboard cache ended trials, which makes polling cheap, and SQLite continues to read a file that
    has been deleted. So when another file takes its place, storage and caches are opened anew.
    """

    def __init__(self, url: str, study_name: str, artifacts: ArtifactFolder, patience_s: float) -> None:
        self._url = url
        self._study_name = study_name
        self._artifacts = artifacts
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._open()

    def answer(self, environ: WSGIEnvironment) -> Response:
        """Return the response to a request.

        Raises:
            Exception: If optuna-dashboard cannot show something that exists.
        """
        path = requested_path(environ)
        # optuna-dashboard expects a header that browsers always send.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        try:
            if (gone := self._gone(path)) is not None:
                return gone
            response = Response.from_app(self._app, environ, buffered=True)
            if path.rstrip("/") == "/api/studies" and response.status_code == HTTPStatus.OK:
                self._hide_other_studies(response)
        except ArtifactNotFound:
            return refusal(HTTPStatus.NOT_FOUND, "the file of this artifact is gone")
        except ConfigurationError as error:
            return _unavailable(str(error))
        except DATABASE_ERRORS as error:
            return _unavailable(storage_error_text(error, self._url))
        if path.startswith("/dashboard"):
            page = response.data.replace(b"</head>", _STYLE + b"</head>", 1)
            response.data = page.replace(b"/bundle.js", b"/bundle.js?names", 1)  # browsers keep the one without names
        elif response.headers.get("Content-Encoding") == "gzip" and response.status_code == HTTPStatus.OK:
            response.data = _with_names(response.data)
        return response

    def _open(self) -> None:
        look_up_quickly()
        file = _file_identity(self._url)
        self._storage = open_storage_for_reading(self._url, busy_timeout_s=self._patience_s)
        # Ended trials are read only once; without a cache every poll would read them all.
        self._app = wsgi(cached_storage(self._storage), self._artifacts)
        # Errors are handled here, not shown as a traceback.
        self._app.catchall = False
        self._file = file

    def _gone(self, path: str) -> Response | None:
        """Refuse a request for a study or trial that does not exist, for which optuna-dashboard has no clear error.

        Raises:
            ConfigurationError: If the database does not exist.
            DATABASE_ERRORS: If the database cannot be read.
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
        except (KeyError, OverflowError):  # the latter: too large for the database
            return False

    def _hide_other_studies(self, response: Response) -> None:
        listed, study_id = json.loads(response.data), self._study_id()
        listed["study_summaries"] = [study for study in listed["study_summaries"] if study["study_id"] == study_id]
        response.data = json.dumps(listed).encode()

    def _follow_file(self) -> None:
        """Open the database anew if another file has taken its place.

        Raises:
            ConfigurationError: If the file does not exist, or cannot be read.
        """
        with self._lock:
            if _file_identity(self._url) != self._file:
                before = self._storage
                self._open()
                before.engine.dispose()


@lru_cache(maxsize=1)
def _with_names(script: bytes) -> bytes:
    """Return the front end's script, compressed like this one, with the name of each trial in the list of trials."""
    return gzip.compress(_LISTED.sub(_NAMED, gzip.decompress(script)))


def _number(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return _NO_ID


def _file_identity(url: str) -> tuple[int, int] | None:
    """Return device and inode of a database file; None if there is none."""
    path = sqlite_path(url)
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _unavailable(text: str) -> Response:
    response = refusal(HTTPStatus.SERVICE_UNAVAILABLE, text)
    response.headers["Retry-After"] = "10"
    return response
