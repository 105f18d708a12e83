"""The web application that shows a study: optuna-dashboard on its database and artifacts, behind the guard."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from studies.dashboard.artifacts import artifact_store
from studies.dashboard.guard import ReadOnlyGuard
from studies.dashboard.server import Address
from studies.dashboard.view import StudyView
from studies.storage.optuna_private import rdb_storage
from studies.storage.output_folder import OutputFolder

# A page polls every few seconds, so a request need not wait as long as a worker does.
PATIENCE_S = 10.0


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
    view = StudyView(rdb_storage(study).url, study.study_name, artifact_store(folder), patience_s=patience_s)
    return ReadOnlyGuard(view.answer, address, tell=tell, debug=debug)


def page_path(study: optuna.Study) -> str:
    """Return the path of the study's own page in the dashboard."""
    return f"/dashboard/studies/{rdb_storage(study).get_study_id_from_name(study.study_name)}"
