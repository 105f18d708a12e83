"""The web application that shows a study: optuna-dashboard for the study's database and artifacts, behind a guard."""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from wsgiref.types import WSGIEnvironment

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial
from optuna_dashboard import _serializer, wsgi
from werkzeug.wrappers import Response

from search_spaces.diagnostics.names import search_trial_name
from search_spaces.errors import ConfigurationError
from studies.dashboard.artifacts import ArtifactFolder, artifact_store
from studies.dashboard.guard import ReadOnlyGuard, refusal, requested_path
from studies.dashboard.server import Address
from studies.storage.open import DATABASE_ERRORS, open_storage_for_reading, storage_error_text
from studies.storage.optuna_private import cached_storage, database_id, rdb_storage
from studies.storage.output_folder import OutputFolder
from studies.storage.url import sqlite_path
from studies.trials.record import EXPERIMENT_NAME, KIND

_TRIAL_ATTRIBUTE = re.compile(r"dashboard:(?:artifacts:)?(?P<trial_id>\d+):")

_cache = threading.local()
_serialize = _serializer.serialize_frozen_trial


def install_fast_serializer() -> None:
    """Replace optuna-dashboard's serializer in this process by `serialize_trial`."""
    _serializer.serialize_frozen_trial = serialize_trial


def serialize_trial(study_id: int, trial: FrozenTrial, study_attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Serialize a trial as optuna-dashboard does, and add the name of a search trial.

    The study's attributes are grouped per trial once. optuna-dashboard's own serializer searches all of them, including
    the notes of all trials, for each trial, which takes most of the time of a request with 3,000 trials.
    """
    if getattr(_cache, "attributes", None) is not study_attributes:
        _cache.attributes, _cache.by_trial = study_attributes, _by_trial(study_attributes)
    serialized: dict[str, Any] = _serialize(study_id, trial, _cache.by_trial.get(database_id(trial), {}))
    if KIND in trial.user_attrs and EXPERIMENT_NAME not in trial.user_attrs:
        serialized["user_attrs"].append({"key": EXPERIMENT_NAME, "value": search_trial_name(trial.number)})
    return serialized


def _by_trial(study_attributes: Mapping[str, Any]) -> Mapping[int, dict[str, Any]]:
    grouped: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in study_attributes.items():
        if (match := _TRIAL_ATTRIBUTE.match(name)) is not None:
            grouped[int(match["trial_id"])][name] = value
    return grouped


# Shorter than a worker's timeout, because a page repeats its requests every few seconds.
LOCK_TIMEOUT_S = 10.0
_READS_DATABASE = re.compile(
    r"/(?:api/studies|csv|artifacts)(?:/(?P<study_id>-?\d+)(?:/(?P<trial_id>-?\d+)(?=/))?)?(?:/|$)"
)

_NO_STUDY = "this dashboard shows no such study; open the URL that `khmer-tuner dashboard` printed"
_NO_ID = -1  # no study and no trial has this id

# Keeps long attributes from widening a trial's page, makes room for names in the list of trials, and hides the buttons
# and the upload field that would change the study, because the guard refuses their requests.
_STYLE = b"""<style>
main { min-width: 0 }
div:has(> ul > li > [aria-label="Filter"]) { min-width: 20rem; white-space: nowrap }
[aria-label="rename study"], [aria-label="delete study"], [aria-label="delete artifact"],
[class*="MuiCard"]:has([data-testid="UploadFileIcon"]),
button:has([data-testid="AddBoxIcon"], [data-testid="StopCircleIcon"], [data-testid="EditIcon"]) {
  display: none !important
}
</style>"""
# The code of optuna-dashboard's script that shows an item of the list of trials. If a version has other code, the list
# shows no names.
_LIST_ITEM = re.compile(rb"primary:`Trial \$\{(\w+)\.number\}`")
_NAMED_ITEM = rb"primary:`Trial ${\1.number} ${(\1.user_attrs.find(a=>a.key==='experiment_name')||{value:''}).value}`"


def dashboard_app(
    study: optuna.Study,
    folder: OutputFolder,
    address: Address,
    *,
    log: Callable[[str], None],
    debug: bool = False,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> ReadOnlyGuard:
    """Create the web application that shows a study; no request changes the study.

    Args:
        study: A study from `load_study`.
        folder: The study's output folder, which contains the artifacts.
        address: The address at which the application will be served; requests with another host name are refused.
        log: Receives one line per failed request.
        debug: Whether to log every request, and errors with their traceback.
        lock_timeout_s: Seconds that a request waits for a locked database.

    Raises:
        ConfigurationError: The database cannot be read.
    """
    view = _StudyView(rdb_storage(study).url, study.study_name, artifact_store(folder), lock_timeout_s)
    return ReadOnlyGuard(view.answer, address, log=log, debug=debug)


def page_path(study: optuna.Study) -> str:
    """Return the path of the study's page in the dashboard."""
    return f"/dashboard/studies/{rdb_storage(study).get_study_id_from_name(study.study_name)}"


class _StudyView:
    """optuna-dashboard for one study; other studies in the same database are hidden.

    If the database file is replaced, the storage is opened again with new caches, because Optuna and optuna-dashboard
    cache finished trials, which makes polling cheap, and SQLite would continue to read the deleted file.
    """

    def __init__(self, url: str, study_name: str, artifacts: ArtifactFolder, lock_timeout_s: float) -> None:
        self._url = url
        self._study_name = study_name
        self._artifacts = artifacts
        self._lock_timeout_s = lock_timeout_s
        self._lock = threading.Lock()
        self._open()

    def answer(self, environ: WSGIEnvironment) -> Response:
        """Return the response to a request.

        Raises:
            Exception: optuna-dashboard cannot show an existing study or trial.
        """
        path = requested_path(environ)
        # optuna-dashboard expects this header, which browsers always send.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        try:
            if (not_found := self._not_found(path)) is not None:
                return not_found
            response = Response.from_app(self._app, environ, buffered=True)
            if path.rstrip("/") == "/api/studies" and response.status_code == HTTPStatus.OK:
                self._hide_other_studies(response)
        except ArtifactNotFound:
            return refusal(HTTPStatus.NOT_FOUND, "the file of this artifact no longer exists; reload the page")
        except ConfigurationError as error:
            return _unavailable(str(error))
        except DATABASE_ERRORS as error:
            return _unavailable(storage_error_text(error, self._url))
        if path.startswith("/dashboard"):
            page = response.data.replace(b"</head>", _STYLE + b"</head>", 1)
            response.data = page.replace(b"/bundle.js", b"/bundle.js?names", 1)  # browsers cache the original
        elif response.headers.get("Content-Encoding") == "gzip" and response.status_code == HTTPStatus.OK:
            response.data = _with_names(response.data)
        return response

    def _open(self) -> None:
        install_fast_serializer()
        file = _file_identity(self._url)
        self._storage = open_storage_for_reading(self._url, busy_timeout_s=self._lock_timeout_s)
        # The cache reads each finished trial once; without the cache, every poll would read all trials.
        self._app = wsgi(cached_storage(self._storage), self._artifacts)
        # Raise exceptions, which `answer` handles, instead of showing a page with a traceback.
        self._app.catchall = False
        self._file = file

    def _not_found(self, path: str) -> Response | None:
        """Return an error response to a request for a study or trial that does not exist; None for other requests.

        Raises:
            ConfigurationError: The database does not exist.
            DATABASE_ERRORS: The database cannot be read.
        """
        match = _READS_DATABASE.match(path)
        if match is None:
            return None
        self._reopen_if_replaced()
        study_id = self._study_id()
        if match["study_id"] is None:
            return None
        if study_id is None or _number(match["study_id"]) != study_id:
            return refusal(HTTPStatus.NOT_FOUND, _NO_STUDY)
        if match["trial_id"] and not self._has_trial(study_id, _number(match["trial_id"])):
            return refusal(HTTPStatus.NOT_FOUND, "this study has no such trial; choose one from the list of trials")
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
        except (KeyError, OverflowError):  # OverflowError: too large for the database
            return False

    def _hide_other_studies(self, response: Response) -> None:
        content, study_id = json.loads(response.data), self._study_id()
        content["study_summaries"] = [study for study in content["study_summaries"] if study["study_id"] == study_id]
        response.data = json.dumps(content).encode()

    def _reopen_if_replaced(self) -> None:
        """Open the database again if its file has been replaced.

        Raises:
            ConfigurationError: The file does not exist or cannot be read.
        """
        with self._lock:
            if _file_identity(self._url) != self._file:
                old_storage = self._storage
                self._open()
                old_storage.engine.dispose()


@lru_cache(maxsize=1)
def _with_names(script: bytes) -> bytes:
    """Return the gzipped script of optuna-dashboard, changed so that its list of trials shows names."""
    return gzip.compress(_LIST_ITEM.sub(_NAMED_ITEM, gzip.decompress(script)))


def _number(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts to a number
        return _NO_ID


def _file_identity(url: str) -> tuple[int, int] | None:
    """Return the device and the inode of a SQLite file; None for a missing file or a database server."""
    path = sqlite_path(url)
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)


def _unavailable(text: str) -> Response:
    response = refusal(HTTPStatus.SERVICE_UNAVAILABLE, text)
    response.headers["Retry-After"] = "10"
    return response
