"""The status of a study, read once, or polled for the display of a run."""

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

# Polls of large studies are slow. They take at most this fraction of the time, unless that needs pauses over a minute.
_MAX_FRACTION = 0.01
_MAX_PAUSE_S = 60.0
_QUICK_POLL_S = 0.05
# A failed poll must not end the training. A broken database or folder raises again when a worker writes to it, and a
# damaged value (ValueError) does not affect the workers.
POLL_ERRORS = (*DATABASE_ERRORS, OSError, ValueError)


def read_status(study: optuna.Study, folder: OutputFolder) -> StudyStatus:
    """Read the status of a study, including the epoch durations of running trials; nothing is written.

    Args:
        study: A study from `load_study` or `create_or_join_study`.
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
            every_s: Pause between two polls in seconds, above 0; the pause is longer if polls are slow.
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
        self._next = ended + max(self._every_s, min(self._took / _MAX_FRACTION, _MAX_PAUSE_S))

    def poll_after_trial(self) -> None:
        """Poll at the end of a trial if the last poll was quick; otherwise only if the pause is over."""
        if self.is_due or self._took < _QUICK_POLL_S:
            self.poll()

    def poll_if_due(self) -> None:
        """Poll if the pause after the last poll is over."""
        if self.is_due:
            self.poll()
