"""Read the status of a study once, or repeatedly for the display of a run."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from studies import DATABASE_ERRORS, OutputFolder, StudyStatus, study_status, without_retries
from tuner.training.history import read_metrics

if TYPE_CHECKING:
    from tuner.session.session import Session

# Polls of large studies are slow. They take at most this share of the time, unless that needs a pause over a minute.
_MAX_SHARE = 0.01
_MAX_PAUSE_S = 60.0
_QUICK_POLL_S = 0.05
# A failed poll must not end the training: a broken database or folder raises again when it is written, and a damaged
# value (ValueError) does not affect the workers.
POLL_ERRORS = (*DATABASE_ERRORS, OSError, ValueError)


def read_status(study: optuna.Study, folder: OutputFolder) -> StudyStatus:
    """Return the status of a study, including the epoch times of running trials; nothing is written.

    Args:
        study: From `load_study` or `create_or_join_study`.
        folder: Its output folder.
    """
    return study_status(study, folder, _epoch_times)


def _epoch_times(trial_dir: Path) -> list[float]:
    return [metrics.epoch_seconds for metrics in read_metrics(trial_dir)]


class StatusPoller:
    """Polls the study for the session's display, rarely enough not to slow down the training."""

    def __init__(self, session: Session, *, every_s: float) -> None:
        """Prepare the first poll.

        Args:
            session: The opened study.
            every_s: Seconds between two polls, if polls are fast; positive.
        """
        self._session = session
        self._every_s = every_s
        self._next = 0.0
        self._took = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the pause after the last poll is over."""
        return time.monotonic() >= self._next

    def poll(self) -> None:
        """Read the status and pass it to the display; a failed poll is ignored."""
        started = time.monotonic()
        with contextlib.suppress(*POLL_ERRORS), without_retries(self._session.study):
            status = read_status(self._session.study, self._session.context.folder)
            self._session.context.display.status_polled(status)
        ended = time.monotonic()
        self._took = ended - started
        # The maximum pause also applies after a poll that waited for a lock or a server.
        self._next = ended + max(self._every_s, min(self._took / _MAX_SHARE, _MAX_PAUSE_S))

    def poll_after_trial(self) -> None:
        """Poll after a trial has finished, unless polls are slow and the next one is not due."""
        if self.is_due or self._took < _QUICK_POLL_S:
            self.poll()

    def poll_if_due(self) -> None:
        """Poll if the pause after the last poll is over."""
        if self.is_due:
            self.poll()
