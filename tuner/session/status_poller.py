"""Telling a display now and then how the study as a whole stands, whoever works on it."""

from __future__ import annotations

import contextlib
import time

from studies import DATABASE_ERRORS
from studies.trials.leases import without_retries
from tuner.display.look import look_at_study
from tuner.session.session import Session

# Looking takes longer the more trials there are; up to pauses of a minute it takes no more than this share of the time.
_MOST_SHARE = 0.01
_QUICK_S = 0.05
# A look that had to wait, for a lock or a server, says nothing of how long looks take.
_LONGEST_PAUSE_S = 60.0
# What is only looked at keeps nobody from working: a database or a folder that fails, fails where it is written, and
# what cannot be understood (a name or a value that somebody changed by hand: ValueError) is nobody's who works.
POLL_ERRORS = (*DATABASE_ERRORS, OSError, ValueError)


class StatusPoller:
    """Reads the study's status and tells the session's display, seldom enough to slow nothing down."""

    def __init__(self, session: Session, *, every_s: float) -> None:
        """Take what to look at.

        Args:
            session: The opened study.
            every_s: Seconds between two looks, if they are quick.
        """
        self._session = session
        self._every_s = every_s
        self._next = 0.0
        self._took = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last look is long enough ago."""
        return time.monotonic() >= self._next

    def tell(self) -> None:
        """Tell how the study stands now."""
        begun = time.monotonic()
        with contextlib.suppress(*POLL_ERRORS), without_retries(self._session.study):
            status = look_at_study(self._session.study, self._session.context.folder)
            self._session.context.display.status_polled(status)
        ended = time.monotonic()
        self._took = ended - begun
        self._next = ended + max(self._every_s, min(self._took / _MOST_SHARE, _LONGEST_PAUSE_S))

    def poll_after_trial(self) -> None:
        """Tell how the study stands, now that a trial has ended, unless looking takes long."""
        if self.is_due or self._took < _QUICK_S:
            self.tell()

    def poll_if_due(self) -> None:
        """Tell how the study stands, if the last look is long enough ago."""
        if self.is_due:
            self.tell()
